"""The user's own code that a recipe names by its path: kept with the run, so that the record can be repeated where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tunesmith import storage
from tunesmith.recipe import loss_names, suite_names
from tunesmith.storage.places import split_query

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe


OF_THE_RUN = ("model", "data", "checkpoints", "evaluations", "gate", "comparisons", "teacher", "federation")
"""Folders that a run makes itself: a package of such a name is not kept."""


def collect(recipe: Recipe) -> dict[str, bytes]:
    """Path within the recipe's folder → content, of each module there that the recipe names: a file, or a package's Python.

    What is installed is not there, and is recorded by its version.
    """
    folder, files = recipe.base_dir, {}
    for module in dict.fromkeys(_modules(recipe)):
        file, package = storage.join(folder, f"{module}.py"), storage.join(folder, module)
        if storage.exists(file):
            files[f"{module}.py"] = storage.read_bytes(file)
        elif storage.is_dir(package):
            start = len(split_query(package)[0]) - len(module)
            places = [place for place in storage.list_files(package, recursive=True) if storage.name(place).endswith(".py")]
            files |= {split_query(place)[0][start:]: storage.read_bytes(place) for place in places}
    return files


def keep(files: Mapping[str, bytes], run: str) -> None:
    """Write what was collected into a run's folder or URI."""
    for name, content in files.items():
        storage.write_bytes(storage.join(run, name), content)


def tops(recipe: Recipe) -> set[str]:
    """The names directly in a run's folder under which its code may stand."""
    return {name for module in _modules(recipe) for name in (module, f"{module}.py")}


def _modules(recipe: Recipe) -> Iterator[str]:
    """The topmost module of each path."""
    evaluation = recipe.evaluation
    paths = [recipe.training.loss] if loss_names.is_own(recipe.training.loss) else []
    paths += [name for name in (*suite_names.asked(evaluation), *evaluation.robustness.kinds) if suite_names.is_own(name)]
    for path in paths:
        top = path.partition(":")[0].partition(".")[0]
        if top.isidentifier() and top not in OF_THE_RUN:
            yield top
