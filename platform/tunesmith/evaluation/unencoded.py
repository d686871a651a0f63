"""Test data for a model whose tokenizer nobody here has: read, checked and hashed as any other, and not turned into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tunesmith.data.prepare import prepare_frozen
from tunesmith.data.prepared import Split
from tunesmith.evaluation.predictions import Progress
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Example, Features, Preprocessing, State, Task


class Unencoded:
    """A task whose examples are kept as they are."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """Nothing of an example."""
        return [Features({"nothing": 0}) for _ in examples]


def raw_split(
    task: Task, state: State, data: str | Mapping[str, str], output_dir: str, progress: Progress | None = None
) -> Split:
    """Labelled data, relative to the working directory, as a split that is only asked about.

    Raises :class:`DataError` where it cannot be used, or has a label that the state lacks.
    """
    first = data if isinstance(data, str) else next(iter(data.values()))
    recipe = Recipe.from_dict(
        {"task": task.name, "model": {"model_name_or_path": "served"}, "data": {"train": first}}, check_paths=False
    )
    unencoded = cast("Task", Unencoded(task))
    given = prepare_frozen(
        recipe, unencoded, Preprocessing(state), data, output_dir=output_dir, progress=progress, engine="local"
    )
    return given.splits["test"]
