"""How well a score tells two sets of examples apart, with intervals: what out-of-distribution scores and attacks are judged by.

- the area under the curve: Wilson's interval with the effective number of examples that DeLong's variance (1988) stands for, or
  Hanley and McNeil's (1982) where that is larger: near 1 few examples decide, and DeLong's covers a true 0.983 of 50 and 50 in
  90 % of the cases only, the larger of both in 98 %
- the true-positive rate at a small false-positive rate: two uncertainties, put together by MOVER (Zou and Donner 2008). Where
  the threshold truly is, from the order statistics of the negatives: how many of them lie above it is binomial, whatever their
  distribution. And how many positives lie above a given threshold (Wilson). A bootstrap knows nothing of a tail of few examples
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tunesmith.evaluation.statistics import Estimate, wilson

Array = npt.NDArray[np.float64]


def auroc(positives: Array, negatives: Array, confidence: float) -> Estimate:
    """The chance that a positive scores above a negative, equal scores counting half; 0.5 tells nothing."""
    n = len(positives) + len(negatives)
    if not len(positives) or not len(negatives):
        return Estimate(math.nan, math.nan, math.nan, n, "none")
    area, effective = _area(positives, negatives)
    return Estimate(area, *wilson(area, effective, confidence), n, "wilson-effective")


def tpr_at_fpr(positives: Array, negatives: Array, fpr: float, confidence: float) -> Estimate:
    """The share of positives above the threshold that lets ``fpr`` of the negatives pass at the most.

    The threshold is a negative's score, and what is equal to it does not pass. Its interval holds the rate at the threshold
    that lets ``fpr`` pass of all such negatives, not only of these.
    """
    from scipy.stats import binom

    n, m = len(positives), len(negatives)
    if not n or not m:
        return Estimate(math.nan, math.nan, math.nan, n + m, "none")
    falling, half = np.sort(negatives)[::-1], (1 - confidence) / 2

    def share(passing: int) -> float:
        """Of the positives above the threshold that lets so many negatives pass."""
        if passing < 0:
            return 0.0
        return float((positives > falling[passing]).mean()) if passing < m else 1.0

    value = share(math.floor(fpr * m + 1e-9))
    fewest, most = (int(binom.ppf(level, m, fpr)) for level in (half, 1 - half))
    low, high = wilson(value, n, confidence)
    below = math.hypot(value - share(fewest - 1), value - low)
    above = math.hypot(share(most) - value, high - value)
    return Estimate(value, max(value - below, 0.0), min(value + above, 1.0), n + m, "mover")


def curve(positives: Array, negatives: Array, most: int = 200) -> list[tuple[float, float]]:
    """The false- and true-positive rates of every threshold that matters, at most ``most`` of them, from (0, 0) to (1, 1)."""
    scores = np.concatenate([positives, negatives])
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of equal scores all or none
    is_positive = order < len(positives)
    hit, false = np.cumsum(is_positive)[last] / len(positives), np.cumsum(~is_positive)[last] / len(negatives)
    if len(last) > most:
        places = np.unique(np.concatenate([np.searchsorted(false, np.geomspace(1e-4, 1, most // 2)), [0, len(last) - 1]]))
        places = np.minimum(places, len(last) - 1)
        hit, false = hit[places], false[places]
    return [(0.0, 0.0), *zip(false.tolist(), hit.tolist(), strict=True)]


def _area(inside: Array, outside: Array) -> tuple[float, float]:
    """The area under the curve, and the number of trials at which a share is as uncertain."""
    n, m = len(inside), len(outside)

    def below(scores: Array, others: Array) -> Array:
        ordered = np.sort(others)
        return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(others))

    mine, theirs = below(inside, outside), 1 - below(outside, inside)
    area = float(mine.mean())
    variance = float((mine.var(ddof=1) / n if n > 1 else 0.0) + (theirs.var(ddof=1) / m if m > 1 else 0.0))
    if variance < 1e-12 or not 0 < area < 1:
        return area, float(min(n, m))
    return area, max(area * (1 - area) / max(variance, _expected(area, n, m)), 1.0)


def _expected(area: float, n: int, m: int) -> float:
    """The variance of an area by Hanley and McNeil (1982, doi:10.1148/radiology.143.1.7063747), from its value alone."""
    both, same = area / (2 - area), 2 * area**2 / (1 + area)
    return (area * (1 - area) + (n - 1) * (both - area**2) + (m - 1) * (same - area**2)) / (n * m)
