"""What a suite is: a function from a :class:`Bench` to a :class:`SuiteResult`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.targets import Provided, Target

if TYPE_CHECKING:
    import pyarrow as pa

    from tunesmith.data.prepared import Split
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.runs import Run
    from tunesmith.tasks.base import State, Task

Progress = Callable[[str, int, int], None]
"""What is done, how many examples are through, and of how many."""

Check = Callable[["Split", "Task", "State", "EvaluationSection"], None]
"""Refuses settings that the data cannot have, before anything is computed. Raises :class:`DataError`."""


@dataclass(frozen=True)
class Bench:
    """What a suite works with."""

    target: Target
    split: Split
    """The examples that the target is judged on, with their references and all columns of their rows."""
    records: pa.Table
    """What the target said of each example as it is: ``predictions.parquet``, in the split's order."""
    settings: EvaluationSection
    run: Run | None = None
    """The run that the target comes from; None of a foreign server."""
    progress: Progress | None = None
    headline: str = ""
    """The metric of the verdict; the task's own where it is not said."""
    folders: Sequence[str] = ()
    """Where functions that the recipe names are looked for, beside what is installed."""


class Suite(Protocol):
    """One question."""

    needs: frozenset[Provided]
    """What it must be told of an example; it is skipped, with the reason, where the target does not tell it."""

    def __call__(self, bench: Bench) -> SuiteResult:
        """The answer. Raises :class:`DataError` where the settings ask for what the data has not."""


@runtime_checkable
class Checked(Protocol):
    """A suite whose settings can be held against the data before anything is computed."""

    check: Check


def suite(*needs: Provided, check: Check | None = None) -> Callable[[Callable[[Bench], SuiteResult]], Suite]:
    """Makes a function a suite that needs so much of its target.

    >>> @suite("labels")
    ... def count(bench):
    ...     return SuiteResult("Count", n=len(bench.records))
    >>> sorted(count.needs)
    ['labels']
    """

    def mark(function: Callable[[Bench], SuiteResult]) -> Suite:
        marked = cast("Suite", function)
        marked.needs = frozenset(needs)
        if check is not None:
            cast("Checked", function).check = check
        return marked

    return mark
