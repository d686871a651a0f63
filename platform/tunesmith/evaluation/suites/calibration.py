"""Whether a model is as sure as it is right, beyond the one calibration error of the verdict.

- ``ece``: the expected calibration error of the likeliest class in 15 bins of equal width (Guo et al. 2017, arXiv:1706.04599)
- ``ece_equal_mass``: the same in 15 bins that hold as many examples each, so that no bin is nearly empty (Nguyen and O'Connor
  2015, arXiv:1508.05154)
- ``ece_classwise``: the mean over classes of the error of that class's own probability (Kull et al. 2019, arXiv:1910.12656);
  it sees a class whose probability is wrong though it is never the likeliest
- ``overconfidence``: how much surer than right the model is on average
- ``brier`` and ``log_loss``: proper scores, which are least for true probabilities
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.evaluation.results import SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate, bootstrap, wilson
from tunesmith.evaluation.suites import words
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.tasks import classes
from tunesmith.tasks.counts import Array, matrix, ratio
from tunesmith.tasks.metrics import ECE_BINS, top_label_ece

TITLE = "Calibration"
MOST_CLASSES = 50
"""Classes in the table, the worst calibrated; the measures are made of all."""


@suite("scores")
def calibration(bench: Bench) -> SuiteResult:
    """Every measure with its interval, and each class's own calibration."""
    state, task = bench.target.state, bench.target.task
    if "probabilities" not in bench.records.column_names or state.get("multi_label") or not state.get("labels"):
        return SuiteResult(TITLE, skipped=f"{task.name} does not give one class of many its probability")
    truth, p = classes.arrays(bench.records, state)
    sure, settings = bench.settings.confidence, bench.settings

    def judge(weights: Any) -> dict[str, Any]:
        found = measures_of(truth, p, matrix(weights, len(truth)))
        return found if np.ndim(weights) == 2 else {name: float(value[0]) for name, value in found.items()}

    measures = bootstrap(judge, len(truth), settings.bootstrap_samples, settings.seed).estimates(sure) | _verdict(bench)
    measures.pop("accuracy", None)  # the verdict has it; here it lifts upper ends where hardly a mistake was seen
    main = SuiteTable("Of all classes", list(measures), {"all examples": list(measures.values())})
    table = _by_class(truth, p, [str(label) for label in state["labels"]], sure)
    return SuiteResult(TITLE, _summary(measures), len(truth), measures, [main, table])


def measures_of(truth: npt.NDArray[np.int64], p: Array, w: Array) -> dict[str, Array]:
    """Accuracy and errors ``[b]`` of probabilities ``[n, classes]`` for right classes ``[n]`` under weights ``[b, n]``."""
    top, right = p.max(1), p.argmax(1) == truth
    total = w.sum(1)
    each = [_binned(w, p[:, k], truth == k, _equal_width(p[:, k])) for k in range(p.shape[1])]
    return {
        "accuracy": np.asarray(ratio(w @ right.astype(np.float64), total)),
        "ece": top_label_ece(top, right, w),
        "ece_equal_mass": np.asarray(ratio(_binned(w, top, right, _equal_mass(top)), total)),
        "ece_classwise": np.asarray(ratio(np.mean(each, axis=0), total)),
        "overconfidence": np.asarray(ratio(w @ (top - right), total)),
    }


def _equal_width(p: Array) -> npt.NDArray[np.int64]:
    return (np.ceil(p * ECE_BINS).astype(np.int64) - 1).clip(0, ECE_BINS - 1)


def _equal_mass(p: Array) -> npt.NDArray[np.int64]:
    """Bins of as many examples each; equal confidences share one."""
    ordered = np.sort(p)
    edges = np.unique(ordered[(np.arange(1, ECE_BINS) * len(p)) // ECE_BINS])
    return np.searchsorted(edges, p, side="right").astype(np.int64)


def _binned(w: Array, p: Array, right: npt.NDArray[np.bool_], bins: npt.NDArray[np.int64]) -> Array:
    """The sum over bins of the absolute difference between how often it is right and how sure it is, ``[b]``."""
    gap = np.zeros((len(p), ECE_BINS))
    gap[np.arange(len(p)), bins] = right - p
    return np.asarray(np.abs(w @ gap).sum(1))


def _verdict(bench: Bench) -> dict[str, Estimate]:
    """The verdict's own proper scores, over the same resamples, and the accuracy."""
    task, state, settings = bench.target.task, bench.target.state, bench.settings
    records: pa.Table = bench.records
    names = ("accuracy", "brier", "log_loss")
    found = bootstrap(
        lambda weights: {name: value for name, value in task.aggregate(records, state, weights).items() if name in names},
        len(records),
        settings.bootstrap_samples,
        settings.seed,
    )
    return found.estimates(settings.confidence)


def _by_class(truth: npt.NDArray[np.int64], p: Array, labels: list[str], confidence: float) -> SuiteTable:
    """How often each class is right beside its mean probability, the farthest apart first."""
    n, said = len(truth), p.mean(0)
    share = np.asarray([(truth == k).mean() for k in range(len(labels))])
    rows: dict[str, list[Estimate | None]] = {}
    for k in np.argsort(-np.abs(said - share), kind="stable")[:MOST_CLASSES]:
        there = Estimate(float(share[k]), *wilson(float(share[k]), n, confidence), n, "wilson")
        rows[labels[k]] = [there, Estimate(float(said[k]), float("nan"), float("nan"), n, "none")]
    note = "Where the mean probability is outside the interval, the class is thought likelier or rarer than it is."
    return SuiteTable("By class", ["share_of_examples", "mean_probability"], rows, note=note)


def _summary(measures: dict[str, Estimate]) -> str:
    lean = measures["overconfidence"]
    way = "surer than right" if lean.low > 0 else "less sure than right" if lean.high < 0 else "about as sure as right"
    whole, each = (words.share(measures[name]) for name in ("ece", "ece_classwise"))
    return f"The model is {way}; calibration error {whole}, class by class {each}."
