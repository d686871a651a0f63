"""What is compared or gated, opened: a run, the folder of an evaluation, or a file of predictions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from tunesmith import storage
from tunesmith.errors import DataError, RunError, UserError
from tunesmith.evaluation import terms
from tunesmith.evaluation.judging import PREDICTIONS, VERDICT
from tunesmith.evaluation.openai_url import is_openai
from tunesmith.evaluation.predictions import ID, read_predictions
from tunesmith.evaluation.results import Evaluation
from tunesmith.evaluation.statistics import COUNTS, Aggregate, Bootstrap, bootstrap
from tunesmith.evaluation.terms import Terms
from tunesmith.runs import Artefact, Run
from tunesmith.runs.artefact import FILE as ARTEFACT
from tunesmith.runs.run import is_run
from tunesmith.tasks import load_task
from tunesmith.tasks.metrics import weighted_mean

if TYPE_CHECKING:
    from tunesmith.tasks.base import State, Task

SAMPLES, SEED = 1000, 42
"""Resamples, and their seed, where no recipe says."""

NEEDED = (ID, "correct")
"""Columns without which predictions cannot be compared."""


@dataclass(frozen=True)
class Side:
    """A model's answers to the examples that it was judged on."""

    name: str
    """For people: the run's name, with the evaluation's or the file's."""
    folder: str
    """Where its files are."""
    records: pa.Table
    """``predictions.parquet``."""
    evaluation: Evaluation | None = None
    """The verdict beside them; None for a file alone."""
    run: Run | None = None
    """The run that it belongs to, where there is one."""
    task: Task | None = None
    state: State | None = None
    """The labels; None where nobody says, and then only accuracy (and the loss, where it is written down) can be told."""
    without: frozenset[str] = frozenset()
    """Metrics that its answers cannot tell."""

    @property
    def seed(self) -> tuple[int, int]:
        """Resamples, and their seed, as the recipe has them."""
        settings = self.run.recipe.evaluation if self.run else None
        return (settings.bootstrap_samples, settings.seed) if settings else (SAMPLES, SEED)

    def judged(self, records: pa.Table, samples: int, seed: int) -> Bootstrap:
        """Every metric of some of the records, over resamples."""
        return bootstrap(
            self._judge(records), len(records), samples, seed, part=lambda rows: self._judge(records.take(pa.array(rows)))
        )

    def _judge(self, records: pa.Table) -> Aggregate:
        if self.task is None or self.state is None:
            known = {"accuracy": records["correct"].combine_chunks().to_numpy(zero_copy_only=False)}
            if "loss" in records.column_names:
                known["loss"] = records["loss"].to_numpy()
            return lambda weights: {name: weighted_mean(values, weights) for name, values in known.items()}
        known_by, kept = Terms(self.task, self.state, self.without), self._kept
        if kept is None:
            return lambda weights: known_by.told(known_by.task.aggregate(records, known_by.state, weights))
        return lambda weights: {
            name: value
            for name, value in known_by.told(known_by.task.aggregate(records, known_by.state, weights)).items()
            if name in kept or name.startswith(COUNTS)
        }

    @property
    def _kept(self) -> frozenset[str] | None:
        """The metrics that the evaluation beside the answers holds, which knows what could not be told; None without one."""
        if self.evaluation is None:
            return None
        each = (f"{metric}/{label}" for label, one in self.evaluation.per_class.items() for metric in one.metrics)
        return frozenset([*self.evaluation.metrics, *each])


def open_side(place: str, output_dir: str = "runs", *, rows: bool = True) -> Side:
    """A run (folder, URI, name, its beginning, or ``latest``), an evaluation's folder, or a ``predictions.parquet``.

    This is the one place where a target becomes an evaluation and its predictions. Without ``rows`` a run that was judged by
    sums over rows elsewhere is one too: it has a verdict, and no predictions.

    Raises:
        RunError: there is no such run, nobody has judged it yet, or its rows are wanted and elsewhere.
        DataError: the file has no predictions.
        UserError: an address; a served model is evaluated first.
    """
    if place.startswith(("http://", "https://")) or is_openai(place):
        raise UserError(f"{place} is an address\n    → Judge it first: `tunesmith evaluate {place}`, and name that folder here")
    if place.endswith(".parquet"):
        if not storage.exists(place):
            raise DataError(f"there is no file {place}\n    → Name a run, an evaluation's folder or a {PREDICTIONS}")
        return _opened(storage.parent(place), place, storage.name(place))
    if storage.exists(storage.join(place, PREDICTIONS)) and not is_run(place):
        return _opened(place, storage.join(place, PREDICTIONS), storage.name(place))
    run = Run.open(place, output_dir)
    if storage.exists(run.file(PREDICTIONS)):
        return _opened(run.path, run.file(PREDICTIONS), run.name, run)
    evaluation = verdict_of(run.path)
    if evaluation is None:
        raise RunError(f"{run.path} has no {PREDICTIONS}: it has not been judged\n    → `tunesmith evaluate {run.path}`")
    if rows:
        raise RunError(
            f"{run.path} has no {PREDICTIONS}: it was judged by sums over rows that are not here, and not example by example\n"
            f"    → Judge it by rows of your own, `tunesmith evaluate {run.path} --data FILE`, and name that folder"
        )
    none = pa.table({name: pa.array([], pa.string()) for name in NEEDED})
    return _read_by(Side(run.name, run.path, none, evaluation, run))


def open_evaluation(place: str, output_dir: str = "runs") -> Side:
    """:func:`open_side` of what has a verdict, with or without rows. Raises :class:`DataError` for a file alone."""
    side = open_side(place, output_dir, rows=False)
    if side.evaluation is None:
        raise DataError(f"{side.folder} has no {VERDICT} beside the predictions\n    → Name a run, or an evaluation's folder")
    return side


def verdict_of_run(side: Side) -> Evaluation | None:
    """The own verdict of the run that a side belongs to, where both were judged on the same examples."""
    if side.run is None or side.evaluation is None:
        return None
    own = verdict_of(side.run.path)
    return own if own is not None and own.data_hash == side.evaluation.data_hash else None


def _opened(folder: str, file: str, name: str, run: Run | None = None) -> Side:
    run = run or _run_above(folder)
    records = read_predictions(file)
    missing = [column for column in NEEDED if column not in records.column_names]
    if missing:
        raise DataError(
            f"{file}: these are no predictions: there is no column {', '.join(missing)}\n"
            f"    → It has {', '.join(records.column_names)}. Name a {PREDICTIONS} that `tunesmith evaluate` wrote"
        )
    evaluation = verdict_of(folder) if storage.name(file) == PREDICTIONS else None
    if run is not None and run.name != name:
        name = f"{run.name}/{name}"
    return _read_by(Side(name, folder, records, evaluation, run))


def _read_by(side: Side) -> Side:
    """The side with the task and the labels that its predictions are read by, where they are known."""
    known_by = _terms(side.folder, side.run, side.evaluation)
    if known_by is None:
        return side
    return dataclasses.replace(side, task=known_by.task, state=known_by.state, without=known_by.without)


def _run_above(folder: str) -> Run | None:
    """The run that an evaluation's folder lies in: ``RUN/evaluations/NAME``."""
    above = (folder, storage.parent(folder), storage.parent(storage.parent(folder)))
    return next((Run(place) for place in above if is_run(place)), None)


def verdict_of(folder: str) -> Evaluation | None:
    """The verdict in a run's or an evaluation's folder; None where there is none. Raises :class:`DataError`."""
    place = storage.join(folder, VERDICT)
    try:
        return dataclasses.replace(Evaluation.from_json(storage.read_json(place)), folder=folder)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} is damaged: {error!r}\n    → Make it again with `tunesmith evaluate`") from error


def _terms(folder: str, run: Run | None, evaluation: Evaluation | None) -> Terms | None:
    """What the predictions are read by: what stands beside them, or the run's model says."""
    kept = terms.read(folder)
    if kept is not None or run is None or not storage.exists(storage.join(run.file("model"), ARTEFACT)):
        return kept
    return Terms(load_task(evaluation.task if evaluation else run.recipe.task), Artefact.read(run.file("model")).state)
