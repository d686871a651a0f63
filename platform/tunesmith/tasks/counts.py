"""Weights of records, counts of classes, and the ratios made of them: what all metrics of classification share.

Counts are arrays ``[b, classes]``, one row for each resample; see :mod:`tunesmith.tasks.metrics` for the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Values = dict[str, Any]
"""Metric name → a float, or an array ``[b]`` where b resamples were asked for."""


def matrix(weights: ArrayLike | None, n: int) -> Array:
    """The weights as ``[b, n]``."""
    if weights is None:
        return np.ones((1, n))
    rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    assert rows.shape[1] == n, f"{rows.shape[1]} weights for {n} records"
    return rows


def finish(values: Values, weights: ArrayLike | None) -> Values:
    """Floats where one resample was asked for, arrays ``[b]`` where several were."""
    if weights is not None and np.ndim(weights) == 2:
        return values
    return {name: float(value[0]) for name, value in values.items()}


def ratio(top: ArrayLike, bottom: ArrayLike) -> Any:
    """``top / bottom``, NaN where ``bottom`` is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def defined_mean(values: Array, where: NDArray[np.bool_] | None = None) -> Array:
    """The mean of each row ``[b, classes]`` over the classes where it is defined, NaN where it is nowhere."""
    use = ~np.isnan(values) if where is None else where
    return np.asarray(ratio(np.where(use, np.nan_to_num(values), 0.0).sum(axis=1), use.sum(axis=1)))


def group_sums(w: Array, groups: NDArray[np.int64], count: int) -> Array:
    """The weight of each group ``[b, count]``, for the group of each record ``[n]``."""
    sums = np.zeros((w.shape[0], count))
    if groups.size:
        order = np.argsort(groups, kind="stable")
        present, starts = np.unique(groups[order], return_index=True)
        sums[:, present] = np.add.reduceat(w[:, order], starts, axis=1)
    return sums


def averages(predicted: Array, correct: Array, support: Array) -> Values:
    """Macro and support-weighted precision, recall and F1 of counts ``[b, classes]``."""
    occurs = (predicted + support) > 0
    parts = {
        "precision": ratio(correct, predicted),
        "recall": ratio(correct, support),
        "f1": ratio(2 * correct, predicted + support),
    }
    macro = {f"{name}_macro": defined_mean(part, occurs) for name, part in parts.items()}
    total = support.sum(axis=1)
    weighted = {f"{name}_weighted": ratio((support * np.nan_to_num(part)).sum(axis=1), total) for name, part in parts.items()}
    return macro | weighted


def micro(predicted: Array, correct: Array, support: Array) -> Values:
    """Precision, recall and F1 of all classes' counts together; 0 where undefined, as in scikit-learn."""
    hits, guesses, wanted = correct.sum(axis=1), predicted.sum(axis=1), support.sum(axis=1)
    return {
        "precision_micro": np.nan_to_num(ratio(hits, guesses)),
        "recall_micro": np.nan_to_num(ratio(hits, wanted)),
        "f1_micro": np.nan_to_num(ratio(2 * hits, guesses + wanted)),
    }


def per_label(labels: Sequence[str], predicted: Array, correct: Array, support: Array, independent: bool = True) -> Values:
    """``precision/LABEL``, ``recall/LABEL``, ``f1/LABEL``, ``support/LABEL`` and, if ``independent``, ``predicted/LABEL``.

    ``predicted/LABEL`` tells :mod:`tunesmith.evaluation.statistics` that the two ratios are shares of independent records.
    """
    values: Values = {}
    for k, label in enumerate(labels):
        values[f"precision/{label}"] = ratio(correct[:, k], predicted[:, k])
        values[f"recall/{label}"] = ratio(correct[:, k], support[:, k])
        values[f"f1/{label}"] = ratio(2 * correct[:, k], predicted[:, k] + support[:, k])
        values[f"support/{label}"] = support[:, k]
        if independent:
            values[f"predicted/{label}"] = predicted[:, k]
    return values
