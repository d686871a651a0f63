"""Judging without rows: sums that a site makes of its answers, which add up over sites to the metrics of all of them.

=============  ====================================================================================================
``kind``       the sums of one judgement, plain JSON
=============  ====================================================================================================
(each)         ``n`` rows; ``metrics``: name → [weight · value, weight], of each headline metric that is defined
``classes``    one class each: ``confusion`` as [right, said, count]; histograms of scores; ``calibration``
``labels``     any number of classes: ``counts`` as [correct, said, right] of each class; histograms; ``calibration``
``tags``       tagged words: ``counts`` of each entity type (or tag)
``averaged``   any other task: nothing but the means, weighed by rows
=============  ====================================================================================================

Of the first three, what is made of counts, of means over rows and of calibration bins is exactly what
:meth:`Task.aggregate` gives over the pooled records. Areas under curves are made of histograms with :data:`BINS` bins, as if
scores in one bin were equal; :func:`area_error` says how far that can be off.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.tasks.metrics import greater_is_better
from tunesmith_federated import sums_kinds
from tunesmith_federated.sums_kinds import BINS, Floats, Sums, bins_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tunesmith.evaluation.statistics import Estimate
    from tunesmith.tasks.base import Metrics, State, Task

__all__ = [
    "AREAS",
    "BINS",
    "Judgement",
    "Spread",
    "Sums",
    "area_error",
    "averaged",
    "bins_of",
    "estimates",
    "judgement",
    "merge",
    "metrics",
    "spread",
    "sums_of",
]

AREAS = ("roc_auc", "pr_auc")
_OF_COUNTS = ("accuracy", "balanced_accuracy", "mcc", "precision", "recall", "f1", "support", "predicted")
"""Names of metrics, or their beginnings, that follow from counts of classes alone."""
_OF_ROWS = frozenset({"loss", "log_loss", "brier", "hamming_loss", "f1_samples", "token_accuracy"})
"""Means over rows (of tagging: over words), which add up whatever else they are."""


def sums_of(records: pa.Table, task: Task, state: State) -> dict[str, Any]:
    """The sums of a site's records; of a kind only where they give the site's own metrics back."""
    whole = {name: float(value) for name, value in task.aggregate(records, state).items()}
    words = sums_kinds.words(records) if sums_kinds.is_tagging(records, state) else len(records)
    told: dict[str, Any] = {"kind": "averaged", "n": len(records), "metrics": {}}
    for name, value in whole.items():
        if "/" not in name and math.isfinite(value):
            weight = words if name in ("loss", "token_accuracy") else len(records)
            told["metrics"][name] = [value * weight, weight]
    try:
        more = told | sums_kinds.of_kind(records, state)
        found = metrics(more, task, state)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):  # a task of one's own whose records are others
        return told
    same = all(_close(found.get(name, math.nan), value) for name, value in whole.items() if _adds_up(name, more))
    return more if same else told


def merge(sums: Sequence[Sums]) -> dict[str, Any]:
    """The sums of all of them together, in any order the same; where kinds or classes differ, only the means are left."""
    if not sums:
        return {}
    told: dict[str, Any] = {"kind": "averaged", "n": sum(one["n"] for one in sums), "metrics": {}}
    for name in sorted({name for one in sums for name in one["metrics"]}):
        pairs = [one["metrics"][name] for one in sums if name in one["metrics"]]
        told["metrics"][name] = [math.fsum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)]
    shapes = {(one["kind"], *((key, len(one[key])) for key in _PARTS if key in one and key != "confusion")) for one in sums}
    if len(shapes) > 1 or sums[0]["kind"] == "averaged":
        return told
    told["kind"] = sums[0]["kind"]
    if "confusion" in sums[0]:
        cells: Counter[tuple[int, int]] = Counter()
        for one in sums:
            cells.update({(right, said): count for right, said, count in one["confusion"]})
        told["confusion"] = [[*cell, count] for cell, count in sorted(cells.items())]
    for key in ("counts", "calibration"):
        if key in sums[0]:
            columns = zip(*(one[key] for one in sums), strict=True)
            told[key] = [[_added(values) for values in zip(*rows, strict=True)] for rows in columns]
    for key in ("positives", "negatives"):
        if key in sums[0]:
            told[key] = [_joined(rows) for rows in zip(*(one[key] for one in sums), strict=True)]
    return told


_PARTS = ("confusion", "counts", "calibration", "positives", "negatives")


def metrics(sums: Sums, task: Task, state: State) -> Metrics:
    """The metrics of the records that the sums were made of; see the module for which are exact."""
    found: Metrics = {name: total / weight for name, (total, weight) in sums["metrics"].items() if weight}
    if sums["kind"] == "averaged":
        return found
    cells, weights = sums_kinds.cells(sums, state)
    counted = task.aggregate(cells, state, weights)
    found |= {name: float(value) for name, value in counted.items() if _of_counts(name, sums["kind"])}
    if "calibration" in sums and "ece" in found:
        bins = np.asarray(sums["calibration"], dtype=np.float64)
        found["ece"] = float(np.abs(bins[:, 1]).sum() / bins[:, 0].sum())
    if "positives" in sums:
        found |= _areas(sums)
    return found


@dataclass(frozen=True)
class Judgement:
    """What the rows held back say of one model."""

    metrics: Metrics = field(default_factory=dict)
    """Of all classes together; none where nobody could judge."""
    n: int = 0
    """Rows."""
    area_error: float | None = None
    """How far ``roc_auc`` can be off (:func:`area_error`); None where it is not made of histograms."""
    averaged: list[str] = field(default_factory=list)
    """Metrics that are means of the sites'."""


def judgement(sums: Sums, task: Task, state: State) -> Judgement:
    """What these sums say; nothing where there are none."""
    if not sums:
        return Judgement()
    found = {name: float(value) for name, value in metrics(sums, task, state).items() if "/" not in name}
    error = area_error(sums)
    return Judgement(found, int(sums["n"]), error if math.isfinite(error) else None, sorted(averaged(sums, found)))


def averaged(sums: Sums, names: Iterable[str]) -> frozenset[str]:
    """Which of these metrics are no metrics of the pooled records but means of the sites', weighed by their rows."""
    return frozenset(name for name in names if not _adds_up(name, sums) and not (name in AREAS and "positives" in sums))


def area_error(sums: Sums) -> float:
    """How far ``roc_auc`` can be from that of the pooled records: half the share of pairs whose scores share a bin.

    A positive and a negative in one bin count as half a pair, and are in truth between none and one. Macro: the mean over
    the classes. NaN without histograms.
    """
    errors = [(up * down).sum() / up.sum() / down.sum() / 2 for up, down in _histograms(sums) if up.sum() and down.sum()]
    return float(np.mean(errors)) if errors else math.nan


@dataclass(frozen=True)
class Spread:
    """A metric over the sites."""

    worst_site: str
    worst: float
    best_site: str
    best: float
    sd: float
    """Between sites (n - 1); NaN of one site."""
    sites: int
    """Those that have the metric."""


def spread(per_site: Mapping[str, Mapping[str, float]], metric: str) -> Spread | None:
    """The worst and the best site by a metric, and how far sites are apart; None where no site has it.

    >>> found = spread({"a": {"loss": 0.5}, "b": {"loss": 0.1}, "c": {}}, "loss")
    >>> found.worst_site, found.best_site, round(found.sd, 3), found.sites
    ('a', 'b', 0.283, 2)
    """
    known = {site: one[metric] for site, one in sorted(per_site.items()) if math.isfinite(one.get(metric, math.nan))}
    if not known:
        return None
    up = greater_is_better(metric)
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    worst, best = (low, high) if up else (high, low)
    sd = float(np.std(list(known.values()), ddof=1)) if len(known) > 1 else math.nan
    return Spread(worst, known[worst], best, known[best], sd, len(known))


def estimates(found: Mapping[str, float], n: int, confidence: float = 0.95) -> dict[str, Estimate]:
    """Each metric; shares of independent rows (accuracy, recall and precision of classes) with Wilson's interval, others
    without one.
    """
    from tunesmith.evaluation.statistics import Estimate, wilson

    trials: dict[str, float] = {"accuracy": n}
    for name in found:
        head, _, label = name.partition("/")
        of = {"recall": "support", "precision": "predicted"}.get(head)
        if of and label and f"predicted/{label}" in found:
            trials[name] = found[f"{of}/{label}"]
    known = {name: Estimate(value, math.nan, math.nan, n, "none") for name, value in found.items()}
    return known | {
        name: Estimate(found[name], *wilson(min(max(found[name], 0.0), 1.0), count, confidence), round(count), "wilson")
        for name, count in trials.items()
        if count and math.isfinite(found.get(name, math.nan))
    }


def _of_counts(name: str, kind: str) -> bool:
    """Whether it follows from the counts of the classes; of several classes at once, that all are right does not."""
    head = name.partition("/")[0]
    if head == "f1_samples" or (head == "accuracy" and kind == "labels"):
        return False
    return any(head == one or head.startswith(f"{one}_") for one in _OF_COUNTS)


def _adds_up(name: str, sums: Sums) -> bool:
    """Whether a metric is exact of such sums."""
    if sums["kind"] == "averaged":
        return False
    mean_of_rows = name in _OF_ROWS or (name == "accuracy" and sums["kind"] == "labels")
    return mean_of_rows or _of_counts(name, sums["kind"]) or (name == "ece" and "calibration" in sums)


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))


def _added(values: Sequence[float]) -> float:
    return math.fsum(values) if any(isinstance(value, float) for value in values) else sum(values)


def _joined(histograms: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in histograms:
        total.update(one)
    return dict(sorted(total.items(), key=lambda pair: int(pair[0])))


def _histograms(sums: Sums) -> list[tuple[Floats, Floats]]:
    """Positives and negatives ``[BINS]`` of each class."""
    return [(_dense(up), _dense(down)) for up, down in zip(sums.get("positives", ()), sums.get("negatives", ()), strict=True)]


def _dense(histogram: Mapping[str, int]) -> Floats:
    bins = np.zeros(BINS)
    for place, count in histogram.items():
        bins[int(place)] = count
    return bins


def _areas(sums: Sums) -> Metrics:
    """ROC-AUC and average precision, the means over the classes for which they are defined."""
    rocs, precisions = [], []
    for up, down in _histograms(sums):
        if not up.sum():
            continue
        above_up, above_down = np.cumsum(up[::-1])[::-1], np.cumsum(down[::-1])[::-1]
        taken = above_up + above_down
        precision = np.divide(above_up, taken, out=np.zeros(BINS), where=taken > 0)
        precisions.append(float((up * precision).sum() / up.sum()))
        if down.sum():
            below = down.sum() - above_down
            rocs.append(float((up * (below + down / 2)).sum() / up.sum() / down.sum()))
    return {name: float(np.mean(all_)) if all_ else math.nan for name, all_ in zip(AREAS, (rocs, precisions), strict=True)}
