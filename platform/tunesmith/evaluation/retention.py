"""What fine-tuning cost of the old: the base and the fine-tuned model judged on the same old examples.

Where the base's own head answers with the classes, every metric is there before and after, with the interval of the paired
difference (:func:`tunesmith.evaluation.statistics.difference`); where the heads differ, the similarity of the two trunks'
representations (:mod:`tunesmith.evaluation.drift`).
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.data.old import OldPlaces, prepare_old
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import UserError
from tunesmith.evaluation import drift
from tunesmith.evaluation.judges import Judges, Which
from tunesmith.evaluation.predictions import Progress, read_predictions, write_predictions
from tunesmith.evaluation.results import Estimates, Retained
from tunesmith.evaluation.statistics import Bootstrap, bootstrap, difference
from tunesmith.recipe.evaluation import EvaluationSection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task

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
    after, before = (_judged(judges, which, split, settings, progress) for which in ("model", "base"))
    names = [name for name in after.values if name in before.values and CLASS_MARK not in name]
    return Retained(
        "score",
        len(split),
        before=_only(before.estimates(settings.confidence), names),
        after=_only(after.estimates(settings.confidence), names),
        differences={name: difference(after, before, name, settings.confidence) for name in names},
    )


def _judged(judges: Judges, which: Which, split: Split, settings: EvaluationSection, progress: Progress | None) -> Bootstrap:
    """The metrics of one model over the same resamples as the other's."""
    task, state = judges.task, judges.preprocessing.state
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        place = str(Path(scratch, "retention.parquet"))
        write_predictions(place, judges.records(which, split, progress), split, {})
        records = read_predictions(place)
        return bootstrap(
            lambda weights: task.aggregate(records, state, weights), len(records), settings.bootstrap_samples, settings.seed
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
