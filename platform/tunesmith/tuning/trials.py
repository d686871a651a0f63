"""Trials: what each of them tried, how it went; and the ledger in which all of it is kept.

A search has no other state: what is tried next follows from its trials. So a search that is gone on with, after whatever ended
it, continues as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tunesmith import storage
from tunesmith.runs.history import History

Origin = Literal["recipe", "sampled", "seed", "earlier"]
Status = Literal["waiting", "running", "done", "stopped", "failed"]
FINISHED: tuple[Status, ...] = ("done", "stopped", "failed")

FOLDER, LEDGER, CHECKPOINTS, EVENTS, JOB = "trials", "trials.jsonl", "checkpoints", "metrics.jsonl", "job.json"


@dataclass(frozen=True)
class Report:
    """One evaluation of a trial."""

    step: int
    """Updates done."""
    score: float
    """The metric that trials are compared by, such that more is better; -inf where it was undefined."""
    epoch: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """On the validation split."""
    seconds: float = 0.0
    """Since the trial began, all its attempts together."""


@dataclass(frozen=True)
class Trial:
    """One training with one choice of values."""

    number: int
    values: Mapping[str, Any]
    """Dotted key → value; keys whose condition does not hold are absent."""
    origin: Origin = "sampled"
    """``recipe``: the recipe's own values; ``seed``: the winning ones with another seed; ``earlier``: of another search."""
    status: Status = "waiting"
    reports: tuple[Report, ...] = ()
    """By step."""
    steps: int = 0
    """Updates that it would make if nothing stopped it; 0 before it is known."""
    seconds: float = 0.0
    """In its process, all attempts together."""
    fit_seconds: float = 0.0
    """Of them in the training loop."""
    cost: float = 0.0
    """Core-seconds, or GPU-seconds."""
    objectives: Mapping[str, float] = field(default_factory=dict)
    """What was measured beside the metrics: ``latency_ms``, ``size_mb``, ``train_seconds``."""
    error: str = ""
    """Why it failed, or was stopped."""
    mistake: bool = False
    """Whether it failed for something that the user can mend."""
    parent: int | None = None
    """The trial whose checkpoint it began with (population-based training)."""
    generation: int = 0
    member: int = 0
    """Its place in the population."""

    @property
    def best(self) -> Report | None:
        """The evaluation with the highest score; of equal ones the first."""
        return max(self.reports, key=lambda one: (one.score, -one.step), default=None)

    @property
    def score(self) -> float | None:
        """The highest score; None before the first evaluation."""
        return self.best.score if self.best is not None else None

    @property
    def done_steps(self) -> int:
        """Updates made up to the last evaluation."""
        return self.reports[-1].step if self.reports else 0

    def value(self, name: str) -> float | None:
        """An objective: what was measured, or a metric at the best evaluation; None where it is not there, or undefined."""
        found = self.told.get(name)
        return found if found is not None and math.isfinite(found) else None

    @property
    def told(self) -> Mapping[str, float]:
        """What was measured, and the metrics at the best evaluation."""
        return {**(self.best.metrics if self.best is not None else {}), **self.objectives}


def folder_of(run: str, number: int) -> str:
    """Where a trial's files are."""
    return storage.join(run, FOLDER, f"{number:04d}")


class Ledger:
    """``trials.jsonl``: a line for whatever happens to a trial, written at once."""

    def __init__(self, run: str) -> None:
        self._history = History(storage.join(run, LEDGER))

    def write(self, number: int, **fields: Any) -> None:
        """Note fields of a trial; those of :class:`Trial`, ``report``, or ``again``: it is begun anew."""
        self._history.append({"number": number, **fields})

    def flush(self) -> None:
        """Write the lines that still wait (only at a remote place some do)."""
        self._history.flush()

    def lines(self) -> list[dict[str, Any]]:
        """What was noted, in order; a line that a crash cut short is left out."""
        return self._history.read()

    def read(self) -> list[Trial]:
        """The trials, in the order of their numbers."""
        return folded(self.lines())


def folded(lines: Iterable[Mapping[str, Any]]) -> list[Trial]:
    """The trials that lines of a ledger tell of.

    >>> folded([{"number": 0, "values": {"a": 1}}, {"number": 0, "report": {"step": 5, "score": 0.5}},
    ...     {"number": 0, "report": {"step": 5, "score": 0.6}}])[0].reports
    (Report(step=5, score=0.6, epoch=0.0, metrics={}, seconds=0.0),)
    """
    trials: dict[int, Trial] = {}
    known = {name for name in Trial.__dataclass_fields__ if name not in ("number", "reports")}
    for line in lines:
        number = line["number"]
        trial = trials.get(number) or Trial(number, {})
        if line.get("again"):
            trial = begun_anew(trial)
        if "report" in line:
            trial = reported(trial, _read(line["report"]))
        trials[number] = replace(trial, **{name: value for name, value in line.items() if name in known})
    return [trials[number] for number in sorted(trials)]


def _read(line: Mapping[str, Any]) -> Report:
    """An evaluation as it was before it was written: JSON has neither NaN nor -inf, and null stands for both."""
    score, metrics = line["score"], line.get("metrics", {})
    numbers = {name: math.nan if value is None else value for name, value in metrics.items()}
    return Report(**{**line, "score": -math.inf if score is None else score, "metrics": numbers})


def reported(trial: Trial, report: Report) -> Trial:
    """The trial with one more evaluation; one of the same step or beyond it was lost with its process, and is replaced."""
    kept = tuple(one for one in trial.reports if one.step < report.step)
    return replace(trial, reports=(*kept, report))


def begun_anew(trial: Trial) -> Trial:
    """A trial that came to nothing, as it is before it is tried once more; its seconds and its cost stay."""
    return replace(trial, status="waiting", reports=(), fit_seconds=0.0, objectives={}, error="", mistake=False)


def as_line(report: Report) -> dict[str, Any]:
    """A report as plain values."""
    return asdict(report)


def lineage(trials: Iterable[Trial], number: int) -> list[Trial]:
    """A trial behind those whose checkpoints it came from, the first of them first."""
    known = {trial.number: trial for trial in trials}
    found = [known[number]]
    while (parent := found[0].parent) is not None:
        found.insert(0, known[parent])
    return found
