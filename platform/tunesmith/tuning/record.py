"""What is kept of a search beside its ledger: ``search.json`` for the report, ``trials.parquet`` for everyone's own look."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.tuning.front import front
from tunesmith.tuning.sampling import importances
from tunesmith.tuning.trials import Trial

if TYPE_CHECKING:
    from tunesmith.tuning.search import Search

RECORD, TABLE = "search.json", "trials.parquet"


def write_record(search: Search, winner: Trial, metric: str, sign: int, rows: int) -> dict[str, Any]:
    """Write both files into the search's run, and return what ``search.json`` has.

    ``sign`` is 1 where more of the metric is better, else -1; ``rows`` those of the validation split.
    """
    settings, trials = search.settings, search.trials
    full = max((trial.steps for trial in trials), default=0)
    record = {
        "metric": metric,
        "sign": sign,
        "rows": rows,
        "algorithm": settings.algorithm,
        "scheduler": settings.scheduler,
        "seed": settings.seed,
        "space": [
            {"key": one.key, "kind": one.kind, "values": list(one.values), "low": one.low, "high": one.high, "log": one.log}
            for one in search.space
        ],
        "winner": winner.number,
        "winner_by": settings.winner,
        "ended_by": search.ended_by,
        "elapsed": round(search.elapsed, 1),
        "cost": round(search.cost, 1),
        "steps_done": steps_done(trials),
        "steps_planned": sum((trial.steps or full) for trial in trials) // (settings.generations if parts(search) else 1),
        "importances": dict(importances(settings, search.space, trials)) if not parts(search) else {},
        "objectives": list(settings.objectives),
        "tolerance": settings.tolerance,
        "front": [trial.number for trial in front(settings, search.candidates())] if len(settings.objectives) > 1 else [],
        "seeds": [sign * score for score in search.repeated()],
        "seeds_planned": settings.seeds - 1,
        "trials": [_row(trial, sign, settings.objectives[1:]) for trial in trials],
    }
    storage.write_json(storage.join(search.run, RECORD), record)
    storage.write_bytes(storage.join(search.run, TABLE), table(trials, metric, sign))
    return record


def parts(search: Search) -> bool:
    """Whether trials are stretches of a training."""
    return search.settings.scheduler == "pbt"


def steps_done(trials: Sequence[Trial]) -> int:
    """Updates that all trials made; a stretch counts from where its parent had ended."""
    known = {trial.number: trial for trial in trials}
    begun = [known[trial.parent].done_steps if trial.parent in known else 0 for trial in trials]
    return sum(max(0, trial.done_steps - before) for trial, before in zip(trials, begun, strict=True))


def _row(trial: Trial, sign: int, objectives: Sequence[str]) -> dict[str, Any]:
    """A trial as the report needs it, with its further ``objectives``."""
    return {
        "number": trial.number,
        "values": dict(trial.values),
        "origin": trial.origin,
        "status": trial.status,
        "value": _finite(sign * trial.score) if trial.score is not None else None,
        "best_step": trial.best.step if trial.best is not None else None,
        "curve": [[one.step, _finite(sign * one.score)] for one in trial.reports],
        "done": trial.done_steps,
        "steps": trial.steps,
        "seconds": round(trial.seconds, 2),
        "fit_seconds": round(trial.fit_seconds, 2),
        "objectives": {name: value for name in objectives if (value := trial.value(name)) is not None},
        "parent": trial.parent,
        "member": trial.member,
        "error": trial.error,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(trials: Sequence[Trial], metric: str, sign: int) -> bytes:
    """The trials as Parquet: a row for each, a column for each key and each metric at its best evaluation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    metrics = list(dict.fromkeys(name for trial in trials if trial.best for name in trial.best.metrics))
    measured = list(dict.fromkeys(name for trial in trials for name in trial.objectives))
    columns: dict[str, list[Any]] = {
        "trial": [trial.number for trial in trials],
        "status": [trial.status for trial in trials],
        "origin": [trial.origin for trial in trials],
        "parent": [trial.parent for trial in trials],
        f"best_{metric}": [sign * trial.score if trial.score is not None else None for trial in trials],
        "best_step": [trial.best.step if trial.best else None for trial in trials],
        "steps_done": [trial.done_steps for trial in trials],
        "steps_planned": [trial.steps for trial in trials],
        "evaluations": [len(trial.reports) for trial in trials],
        "seconds": [trial.seconds for trial in trials],
        "cost": [trial.cost for trial in trials],
        "error": [trial.error or None for trial in trials],
        **{key: _column([trial.values.get(key) for trial in trials]) for key in keys},
        **{f"metrics.{name}": [_of(trial, name) for trial in trials] for name in metrics},
        **{f"objectives.{name}": [trial.objectives.get(name) for trial in trials] for name in measured},
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def _of(trial: Trial, name: str) -> float | None:
    return trial.best.metrics.get(name) if trial.best is not None else None


def _column(values: list[Any]) -> list[Any]:
    """Numbers as they are; of mixed kinds, or lists and mappings, as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [float(value) if value is not None and float in kinds else value for value in values]
    if kinds in ({str}, {bool}):
        return values
    return [json.dumps(value) if value is not None else None for value in values]


def history(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The curves of a winner, whose lineage's lines these are: of each split and step the last."""
    kept = {(line.get("split"), line.get("step")): dict(line) for line in lines}
    return sorted(kept.values(), key=lambda line: (line.get("step", 0), line.get("split") != "train"))
