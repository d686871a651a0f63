"""The metrics of classification and tagging: pure NumPy, weighted, and vectorised over bootstrap resamples.

Every function takes ``weights``, how often each record counts:

- None: once each; the values are floats
- ``[n]``: a resample; the values are floats, the same as if each record were repeated so often
- ``[b, n]``: b resamples at once; the values are arrays ``[b]`` (the sorting is then done once, not b times)

Undefined values are NaN: the recall of a class that the references lack, the precision of one that is never predicted, the
ROC-AUC of one class. A macro average runs over the classes that occur in the references or the predictions and counts an
undefined ratio there as 0 (scikit-learn's default); ROC-AUC and PR-AUC average over the classes for which they are defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunesmith.tasks.counts import Array, Values, averages, defined_mean, finish, group_sums, matrix, micro, per_label, ratio
from tunesmith.tasks.tagging import tagging, tagging_counts, tagging_metrics

__all__ = [
    "ECE_BINS",
    "LOWER_IS_BETTER",
    "greater_is_better",
    "guesses",
    "limits",
    "multi_label",
    "per_resample",
    "single_label",
    "tagging",
    "tagging_counts",
    "tagging_metrics",
    "weighted_mean",
]

LOWER_IS_BETTER = frozenset(
    {
        "loss",
        "log_loss",
        "brier",
        "ece",
        "ece_equal_mass",
        "ece_classwise",
        "hamming_loss",
        "wer",
        "cer",
        "mae",
        "mse",
        "rmse",
        "perplexity",
    }
)
"""Names of the metrics of which less is better; of every other metric more is."""

ECE_BINS = 15
"""Equal-width bins of the calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""


def greater_is_better(name: str) -> bool:
    """Whether more of a metric is better; a class (``f1/cat``) or a split (``validation_loss``) in its name does not matter.

    >>> greater_is_better("f1_macro"), greater_is_better("log_loss"), greater_is_better("eval_loss")
    (True, False, False)
    """
    return _base(name) not in LOWER_IS_BETTER


def limits(name: str) -> tuple[float, float]:
    """The least and the largest value that a metric can have; infinite where it has none, or is not known.

    >>> limits("f1_macro"), limits("accuracy/clean"), limits("mcc"), limits("log_loss")
    ((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.0, inf))
    """
    base = _base(name)
    if base in LOWER_IS_BETTER:
        return 0.0, _MOST.get(base, math.inf)
    whole, _, average = base.rpartition("_")
    known = base in _SHARES or (average in _AVERAGES and whole in _SHARES)
    return (0.0, 1.0) if known else (-1.0, 1.0) if base == "mcc" else (-math.inf, math.inf)


_SHARES = frozenset({"accuracy", "balanced_accuracy", "token_accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc"})
_AVERAGES = frozenset({"macro", "micro", "weighted", "samples"})
_MOST = {"ece": 1.0, "ece_equal_mass": 1.0, "ece_classwise": 1.0, "hamming_loss": 1.0, "brier": 2.0}


def _base(name: str) -> str:
    """A metric's name without a class or set behind it and without a split before it."""
    base = name.split("/", 1)[0]
    for prefix in ("eval_", "train_", "validation_", "test_"):
        base = base.removeprefix(prefix)
    return base


def weighted_mean(values: ArrayLike, weights: ArrayLike | None = None, per: ArrayLike | None = None) -> Any:
    """The mean over records ``[n]``: a float, or an array ``[b]`` for weights ``[b, n]``; NaN without weight.

    With ``per`` ``[n]``, how many units each record holds, the values are sums over them, and the mean is that of a unit.

    >>> weighted_mean([1.0, 4.0], [2, 1])
    2.0
    >>> weighted_mean([6.0, 4.0], per=[3, 2])
    2.0
    """
    total = np.asarray(values, dtype=np.float64)
    units = np.ones(total.size) if per is None else np.asarray(per, dtype=np.float64)
    w = matrix(weights, total.size)
    return finish({"": ratio(w @ total, w @ units)}, weights)[""]


def per_resample(metrics: Callable[[Array], Mapping[str, float]], weights: ArrayLike | None, n: int) -> Values:
    """What ``metrics(weights [n])`` gives, for a metric that has no vectorised form: row by row for weights ``[b, n]``."""
    rows = [metrics(row) for row in matrix(weights, n)]
    return finish({name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}, weights)


def guesses(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """The predicted class of each record of ``[n, classes]``: the likeliest; one past the last where all have probability 0.

    >>> guesses(np.array([[0.2, 0.8], [0.0, 0.0]])).tolist()
    [1, 2]
    """
    count, classes = probabilities.shape
    if not count:
        return np.zeros(0, dtype=np.int64)
    guess: NDArray[np.int64] = np.where((probabilities == 0).all(axis=1), classes, probabilities.argmax(axis=1))
    return guess


def single_label(
    reference: ArrayLike, probabilities: ArrayLike, labels: Sequence[str], weights: ArrayLike | None = None
) -> Values:
    """The metrics of one class per record.

    Besides the usual ones: ``brier`` is the mean of Σ_k (p_k − y_k)² over all classes, from 0 to 2 (Brier 1950); ``ece`` is
    the calibration error of the top label in 15 bins of equal width (Guo et al. 2017); ``roc_auc`` and ``pr_auc`` (average
    precision) are one class against the rest, averaged over classes; of two classes the last is the positive one.
    ``predicted/LABEL`` is how often a class is predicted, ``support/LABEL`` how often it is right.

    Args:
        reference: the right class of each record ``[n]``, an index into ``labels``.
        probabilities: what the model gives each class ``[n, classes]``; all 0 where it predicts none, which is wrong.
        labels: the classes' names, in the order of the model's outputs.
        weights: None, ``[n]`` or ``[b, n]``; see the module.
    """
    gold = np.asarray(reference, dtype=np.int64)
    p = np.asarray(probabilities)
    classes = len(labels)
    w = matrix(weights, gold.size)
    guess = guesses(p)
    right = guess == gold

    support = group_sums(w, gold, classes)
    told = group_sums(w, guess, classes + 1)
    predicted = told[:, :classes]
    correct = group_sums(w[:, right], gold[right], classes)
    n = w.sum(axis=1)
    values: Values = {"accuracy": ratio(correct.sum(axis=1), n)}
    values["balanced_accuracy"] = defined_mean(ratio(correct, support))
    values |= averages(predicted, correct, support)

    positives = [classes - 1] if classes == 2 else range(classes)
    areas = [_areas(p[:, k], gold == k, w) for k in positives]
    values["roc_auc"] = defined_mean(np.stack([roc for roc, _ in areas], axis=1))
    values["pr_auc"] = defined_mean(np.stack([pr for _, pr in areas], axis=1))

    true = p[np.arange(gold.size), gold].astype(np.float64)
    values["log_loss"] = ratio(w @ -np.log(np.clip(true, _smallest(p), 1.0)), n)
    squares = np.square(p, dtype=np.float64).sum(axis=1) - 2 * true + 1
    values["brier"] = ratio(w @ squares, n)
    values["ece"] = top_label_ece(p.max(axis=1) if gold.size else np.zeros(0), right, w)
    values["mcc"] = _matthews(told, correct, support, n)
    values |= per_label(labels, predicted, correct, support)
    return finish(values, weights)


def multi_label(
    reference: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    weights: ArrayLike | None = None,
    threshold: float = 0.5,
) -> Values:
    """The metrics of any number of classes per record; a class is predicted from ``threshold`` on.

    ``accuracy`` asks for all classes of a record (subset accuracy). ``log_loss`` and ``brier`` are means over records and
    classes of the binary loss and of (p − y)²; ``ece`` pools all (record, class) pairs in 15 bins of p. ``f1_samples`` is the
    mean F1 of a record, 0 where it has no class and none is predicted, as in scikit-learn.

    Args:
        reference: which classes are right ``[n, classes]``, boolean.
        probabilities: each class's own probability ``[n, classes]``.
        labels: the classes' names.
        weights: None, ``[n]`` or ``[b, n]``; see the module.
        threshold: the least probability at which a class is predicted.
    """
    gold = np.asarray(reference, dtype=bool)
    p = np.asarray(probabilities)
    w = matrix(weights, gold.shape[0])
    guess = p >= threshold
    both = guess & gold
    n = w.sum(axis=1)

    support, predicted, correct = w @ gold, w @ guess, w @ both
    values: Values = {"accuracy": ratio(w @ (guess == gold).all(axis=1), n)}
    values["hamming_loss"] = ratio(w @ (guess != gold).mean(axis=1), n)
    values |= averages(predicted, correct, support)
    values |= micro(predicted, correct, support)
    sizes = gold.sum(axis=1) + guess.sum(axis=1)
    values["f1_samples"] = ratio(w @ (2 * both.sum(axis=1) / np.maximum(sizes, 1)), n)

    areas = [_areas(p[:, k], gold[:, k], w) for k in range(len(labels))]
    values["roc_auc"] = defined_mean(np.stack([roc for roc, _ in areas], axis=1))
    values["pr_auc"] = defined_mean(np.stack([pr for _, pr in areas], axis=1))

    eps = _smallest(p)
    inside = np.clip(p.astype(np.float64), eps, 1 - eps)
    values["log_loss"] = ratio(w @ -np.where(gold, np.log(inside), np.log1p(-inside)).mean(axis=1), n)
    values["brier"] = ratio(w @ np.square(p - gold, dtype=np.float64).mean(axis=1), n)
    values["ece"] = pooled_ece(p, gold, w)
    values |= per_label(labels, predicted, correct, support)
    return finish(values, weights)


def _areas(scores: NDArray[Any], positive: NDArray[np.bool_], w: Array) -> tuple[Array, Array]:
    """ROC-AUC and average precision ``[b]`` of scores ``[n]``, from one sort; equal scores share a threshold."""
    if not positive.any():
        undefined = np.full(w.shape[0], np.nan)
        return undefined, undefined
    order = np.argsort(-scores, kind="stable")
    ranked, is_positive = scores[order], positive[order]
    above = np.concatenate([np.zeros((w.shape[0], 1)), np.cumsum(w[:, order], axis=1)], axis=1)
    positive_weight = w[:, order[is_positive]]
    above_positive = np.concatenate([np.zeros((w.shape[0], 1)), np.cumsum(positive_weight, axis=1)], axis=1)

    new_threshold = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    starts = np.flatnonzero(new_threshold)
    ends = np.append(starts[1:], ranked.size)
    tie = (np.cumsum(new_threshold) - 1)[is_positive]
    start, end = starts[tie], ends[tie]
    count = np.concatenate([[0], np.cumsum(is_positive)])

    through, through_positive = above[:, end], above_positive[:, count[end]]
    through_negative = through - through_positive
    before_negative = above[:, start] - above_positive[:, count[start]]
    positives = above_positive[:, -1]
    negatives = above[:, -1] - positives
    beaten = negatives[:, None] - 0.5 * (through_negative + before_negative)
    roc = ratio((positive_weight * beaten).sum(axis=1), positives * negatives)
    precision = np.nan_to_num(ratio(through_positive, through))
    return roc, np.asarray(ratio((positive_weight * precision).sum(axis=1), positives))


def _matthews(predicted: Array, correct: Array, support: Array, n: Array) -> Array:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 where one side is constant, as in scikit-learn.

    ``predicted`` ``[b, classes + 1]`` ends with the records of which no class is predicted.
    """
    covariance = correct.sum(axis=1) * n - (predicted[:, :-1] * support).sum(axis=1)
    spread = np.sqrt((n**2 - (predicted**2).sum(axis=1)) * (n**2 - (support**2).sum(axis=1)))
    return np.where(n > 0, np.nan_to_num(ratio(covariance, spread)), np.nan)


def _bins(confidence: NDArray[Any]) -> NDArray[np.int64]:
    """The calibration bin of each confidence: bin i holds (i/15, (i+1)/15], and the first also 0."""
    place: NDArray[np.int64] = np.ceil(confidence * ECE_BINS).astype(np.int64) - 1
    return place.clip(0, ECE_BINS - 1)


def top_label_ece(confidence: NDArray[Any], right: NDArray[np.bool_], w: Array) -> Array:
    bins = _bins(confidence)
    gap = np.zeros((confidence.size, ECE_BINS))
    gap[np.arange(confidence.size), bins] = right - confidence
    return np.asarray(ratio(np.abs(w @ gap).sum(axis=1), w.sum(axis=1)))


def pooled_ece(p: NDArray[Any], gold: NDArray[np.bool_], w: Array) -> Array:
    gap = np.zeros((p.shape[0], ECE_BINS))
    bins = _bins(p)
    for k in range(p.shape[1]):
        gap[np.arange(p.shape[0]), bins[:, k]] += gold[:, k] - p[:, k]
    return np.asarray(ratio(np.abs(w @ gap).sum(axis=1), w.sum(axis=1) * p.shape[1]))


def _smallest(p: NDArray[Any]) -> float:
    """The least probability a log is taken of: the dtype's epsilon, as in scikit-learn."""
    return float(np.finfo(p.dtype if np.issubdtype(p.dtype, np.floating) else np.float64).eps)
