"""What fine-tuning cost of the old: the base and the fine-tuned model judged on the same old examples.

Where the base's own head answers with the classes, every metric is there before and after, with the interval of the paired
difference (:func:`tunesmith.evaluation.statistics.difference`); where the heads differ, or rows have no targets, the similarity
of the two trunks' representations (:mod:`tunesmith.evaluation.drift`).
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.data.old import OldPlace, OldPlaces, named, prepare_old
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError, ServiceError, UserError
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


@dataclass(frozen=True)
class OldSet:
    """A retention set as it is found, before anybody is asked about it."""

    by: str
    """As in :class:`tunesmith.evaluation.results.Retained`."""
    split: Split | None = None
    """None where it is gone."""
    skipped: str = ""
    """Why it cannot be judged; empty where it can."""
    before: Estimates = field(default_factory=dict)
    """For a served model: the base's metrics, by the run's own verdict."""

    def left_out(self) -> Retained:
        """The result of a set that cannot be judged."""
        return Retained(self.by, len(self.split) if self.split is not None else 0, skipped=self.skipped)


def judge_retention(
    run: Run, judges: Judges, own: Callable[[], PreparedData], progress: Progress | None = None
) -> dict[str, Retained]:
    """Every retention set of the run's recipe, by name; empty where it has none. A set that is gone is skipped, and says so."""
    found = {}
    for name, one in old_sets(run, judges.task, own).items():
        judge = _drifted if one.by == "drift" else _scored
        found[name] = one.left_out() if one.split is None else judge(judges, one.split, run.recipe.evaluation, progress)
    return found


def sets_of_served(run: Run, task: Task, own: Callable[[], PreparedData]) -> dict[str, OldSet]:
    """The same sets for a served model, beside what the run's own verdict says of the base."""
    verdict, found = verdict_of(run.path), {}
    for name, one in old_sets(run, task, own).items():
        before = verdict.retention[name].before if verdict is not None and name in verdict.retention else {}
        why = one.skipped
        if one.split is not None and one.by == "drift":
            why = "a served model does not tell its hidden states"
        elif one.split is not None and not before:
            why = "the run's own verdict has not judged the base on it"
        found[name] = replace(one, skipped=why, before=before)
    return found


def judge_served(
    sets: Mapping[str, OldSet], target: Target, settings: EvaluationSection, without: frozenset[str]
) -> dict[str, Retained]:
    """A served model on the sets of :func:`sets_of_served`; not paired, as the base's answers are not kept.

    ``without`` are the metrics that the served model's answers cannot tell. Raises :class:`ServiceError` where it is gone: the
    same command again goes on from the answers that are logged.
    """
    found = {}
    for name, one in sets.items():
        if one.skipped or one.split is None:
            found[name] = one.left_out()
            continue
        try:
            found[name] = _asked(target, one.split, one.before, settings, without)
        except ServiceError:
            raise
        except UserError as error:
            found[name] = replace(one, skipped=_reason(error)).left_out()
    return found


def old_sets(run: Run, task: Task, own: Callable[[], PreparedData]) -> dict[str, OldSet]:
    """Every retention set of the run's recipe, by name; empty where it has none. One that is gone says so.

    They are opened where training left them; prepared again where the record does not say or one is gone.
    """
    names = named(run.recipe.evaluation.retention.data)
    places = OldPlaces.from_json(run.manifest.get("old_data") or {}).retention
    found = {name: _opened(place) for name, place in places.items()}
    if all(name in found and found[name].split is not None for name in names):
        return found
    try:
        return {name: _opened(place) for name, place in prepare_old(run.recipe, task, own()).retention.items()}
    except UserError as error:
        gone = OldSet("score", skipped=_reason(error))
        return {name: found[name] if name in found and found[name].split is not None else gone for name in names}


def _opened(place: OldPlace) -> OldSet:
    try:
        return OldSet(place.by, place.open())
    except UserError as error:
        return OldSet(place.by, skipped=_reason(error))


def _reason(error: UserError) -> str:
    return str(error).splitlines()[0]


def _asked(target: Target, split: Split, before: Estimates, settings: EvaluationSection, without: frozenset[str]) -> Retained:
    """Raises :class:`DataError` where samples are refused."""
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
