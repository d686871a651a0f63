"""What fine-tuning cost of the old: the base and the fine-tuned model judged on the same old examples.

Where the base's own head answers with the classes, every metric is there before and after, with the interval of the paired
difference (:func:`tunesmith.evaluation.statistics.difference`); where the heads differ, or rows have no targets, the similarity
of the two trunks' representations (:mod:`tunesmith.evaluation.drift`).
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.data.old import OldPlace, OldPlaces, prepare_old
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError, UserError
from tunesmith.evaluation import drift
from tunesmith.evaluation.judges import Judges, Which
from tunesmith.evaluation.parity import answered
from tunesmith.evaluation.predictions import Progress, Records, block_indices, read_predictions, write_predictions
from tunesmith.evaluation.results import Estimates, Retained
from tunesmith.evaluation.sides import verdict_of
from tunesmith.evaluation.statistics import Bootstrap, apart, bootstrap, difference
from tunesmith.evaluation.terms import Terms
from tunesmith.recipe.evaluation import EvaluationSection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunesmith.evaluation.targets import Target
    from tunesmith.runs import Run
    from tunesmith.tasks.base import State, Task

RETENTION = "retention/"
"""Before a set's name in the history."""

ROUNDING = 1e-9
"""Drops that exceed the ceiling by no more are within it: the same right answers, summed in another order."""

COMPARED: tuple[Which, Which] = ("model", "base")
"""Whose answers are set side by side: what training ended with, and what it began with."""

CLASS_MARK = "/"
"""In the names of metrics of one class, which are left out here."""


def judge_retention(
    run: Run, judges: Judges, own: Callable[[], PreparedData], progress: Progress | None = None
) -> dict[str, Retained]:
    """Every retention set of the run's recipe, by name; empty where it has none. A set that is gone is skipped, and says so."""
    settings = run.recipe.evaluation
    if settings.retention.data is None:
        return {}
    found = {}
    for name, place in _places(run, judges.task, own).retention.items():
        try:
            split = place.open()
        except UserError as error:
            found[name] = Retained(place.by, 0, skipped=str(error).splitlines()[0])
            continue
        judge = _drifted if place.by == "drift" else _scored
        found[name] = judge(judges, split, settings, progress)
    return found


def judge_served(
    run: Run, target: Target, own: Callable[[], PreparedData], settings: EvaluationSection, without: frozenset[str]
) -> dict[str, Retained]:
    """The same of a served model, beside what the run's own verdict says of the base: not paired, as its answers are not kept.

    ``without`` are the metrics that the served model's answers cannot tell.
    """
    if run.recipe.evaluation.retention.data is None:
        return {}
    verdict = verdict_of(run.path)
    found = {}
    for name, place in _places(run, target.task, own).retention.items():
        before = verdict.retention[name].before if verdict is not None and name in verdict.retention else {}
        try:
            found[name] = _asked(target, place, before, settings, without)
        except UserError as error:
            found[name] = Retained(place.by, 0, skipped=str(error).splitlines()[0])
    return found


def _asked(
    target: Target, place: OldPlace, before: Estimates, settings: EvaluationSection, without: frozenset[str]
) -> Retained:
    """Raises :class:`DataError` where samples are refused, :class:`UserError` where the set is gone."""
    split = place.open()
    if place.by == "drift":
        return Retained(place.by, len(split), skipped="a served model does not tell its hidden states")
    if not before:
        return Retained(place.by, len(split), skipped="the run's own verdict has not judged the base on it")
    after = judged(_records(target, split), target.task, target.state, split, settings)
    told = Terms(target.task, target.state, without).told(after.values)
    names = [name for name in told if name in before and CLASS_MARK not in name]
    now = _only(after.estimates(settings.confidence), names)
    changes = {name: apart(now[name], before[name]) for name in names}
    return Retained("score", len(split), before=_only(before, names), after=now, differences=changes)


def _records(target: Target, split: Split) -> Records:
    for block in block_indices(len(split)):
        examples = split.examples(block)
        answers = answered(target, examples)
        if refused := sum(answer is None for answer in answers):
            raise DataError(f"{target.name} refuses {refused:,} of its samples")
        yield block, [target.task.score(a, e, target.state) for a, e in zip(answers, examples, strict=True) if a is not None]


def beyond_ceiling(run: Run, mixed: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """How far the kept model is beyond ``evaluation.retention.max_drop``, for the manifest; None where it is not.

    ``set`` has lost most: ``drop`` of ``metric``, None where that is no number; ``max_drop`` was allowed. A model within the
    ceiling is kept before any beyond it, so this says too that there was none. ``mixed`` is the record of WiSE-FT where the
    manifest does not have it yet.
    """
    ceiling, best = run.recipe.evaluation.retention.max_drop, run.manifest.get("best") or {}
    if ceiling is None:
        return None
    if mixed := mixed or run.manifest.get("wise_ft"):
        drops = next(one["drops"] for one in mixed["tried"] if one["alpha"] == mixed["alpha"])
    else:
        kept = [line for line in run.history if line.get("step") == best.get("step")]
        drops = {
            line["split"].removeprefix(RETENTION): line.get("drop") for line in kept if line["split"].startswith(RETENTION)
        }
    if not drops:
        return None
    name = max(drops, key=lambda each: math.inf if drops[each] is None else drops[each])
    if drops[name] is not None and drops[name] <= ceiling + ROUNDING:
        return None
    by = (run.manifest.get("old_data") or {}).get("retention", {}).get(name, {}).get("by")
    return {"set": name, "drop": drops[name], "metric": "1 - CKA" if by == "drift" else best.get("metric"), "max_drop": ceiling}


def _places(run: Run, task: Task, own: Callable[[], PreparedData]) -> OldPlaces:
    """Where training left the prepared sets; prepared again where the record does not say or they are gone."""
    stored = run.manifest.get("old_data")
    if stored:
        places = OldPlaces.from_json(stored)
        with contextlib.suppress(UserError):
            for place in places.retention.values():
                place.open()
            return places
    return prepare_old(run.recipe, task, own())


def _scored(judges: Judges, split: Split, settings: EvaluationSection, progress: Progress | None) -> Retained:
    if not judges.has("base"):
        return Retained("score", len(split), skipped="the base's own head answers with other classes")
    after, before = (
        judged(judges.records(which, split, progress), judges.task, judges.preprocessing.state, split, settings)
        for which in COMPARED
    )
    names = [name for name in after.values if name in before.values and CLASS_MARK not in name]
    return Retained(
        "score",
        len(split),
        before=_only(before.estimates(settings.confidence), names),
        after=_only(after.estimates(settings.confidence), names),
        differences={name: difference(after, before, name, settings.confidence) for name in names},
    )


def judged(records: Records, task: Task, state: State, split: Split, settings: EvaluationSection) -> Bootstrap:
    """The metrics of one model over the same resamples as the other's."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        place = str(Path(scratch, "retention.parquet"))
        write_predictions(place, records, split, {})
        stored = read_predictions(place)
        return bootstrap(
            lambda weights: task.aggregate(stored, state, weights), len(stored), settings.bootstrap_samples, settings.seed
        )


def _drifted(judges: Judges, split: Split, settings: EvaluationSection, progress: Progress | None) -> Retained:
    """At most ``max_samples`` examples, the same draw as during training."""
    chosen = sample(len(split), settings.retention.max_samples, settings.seed)
    before, after = (judges.representation(which, split, chosen) for which in ("start", "model"))
    return Retained("drift", len(chosen), cka=drift.linear_cka(before, after))


def sample(n: int, most: int, seed: int) -> np.ndarray:
    """At most so many of n examples, int64, sorted: the same in every run and during training."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).permutation(n)[:most]).astype(np.int64)


def _only(estimates: Estimates, names: list[str]) -> Estimates:
    return {name: estimates[name] for name in names if name in estimates}
