"""The rows that a run was trained on, for suites that hold them against others; or the reason why they cannot be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from tunesmith.data.prepared import PreparedData
    from tunesmith.evaluation.suites.base import Bench
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task


def training_data(bench: Bench) -> PreparedData | str:
    """The prepared data of the bench's run, whose training rows are those that it was trained on; or why there is none."""
    if bench.run is None:
        return f"nothing is known of what {bench.target.name} was trained on; --like RUN says so of a served run"
    return data_of_training(bench.run, bench.target.task)


def data_of_training(run: Run, task: Task, prepared: PreparedData | None = None) -> PreparedData | str:
    """The same of a run; ``prepared`` where it is open already."""
    from tunesmith.evaluation.evaluate import own_data

    try:
        data = prepared or own_data(run, task, None)
    except UserError as error:
        return f"the run's training data cannot be had: {str(error).splitlines()[0]}"
    trained_with = run.manifest.get("data", {}).get("train", {}).get("hash")
    if trained_with not in (None, data.splits["train"].hash):
        return "the run's training data has changed since: its rows are no longer those that it was trained on"
    return data
