"""The same training repeated over seeds: how sure a metric is where chance in training counts, not only in the test set.

Intervals are Student's t over the seeds (Student 1908), of the differences paired by seed where two trainings are compared: the
same seed gives both the same order of examples. Over few seeds such an interval is wide, and that is the truth. It is cut off
where the metric ends: no accuracy lies below 0 or above 1, so what is cut off holds no true value, and the interval covers the
true one as often as before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tunesmith.evaluation.statistics import Estimate

UNLIMITED = (-math.inf, math.inf)


def over_seeds(values: Sequence[float], confidence: float = 0.95, limits: tuple[float, float] = UNLIMITED) -> Estimate:
    """The mean of a metric over seeds with its interval; ``n`` is the number of seeds.

    Args:
        values: one for each seed; those that are not finite are left out.
        confidence: how often such an interval holds the true mean.
        limits: the least and the largest value that the metric can have (:func:`tunesmith.tasks.metrics.limits`).

    >>> found = over_seeds([0.90, 0.92, 0.94])
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), found.n
    (0.92, 0.87, 0.97, 3)
    >>> over_seeds([0.90, 0.96], limits=(0, 1)).high
    1.0
    """
    from scipy import stats

    known = np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
    if known.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, "none")
    mean = float(known.mean())
    if known.size == 1:
        return Estimate(mean, math.nan, math.nan, 1, "none")
    half = float(stats.t.ppf((1 + confidence) / 2, known.size - 1) * known.std(ddof=1) / math.sqrt(known.size))
    low, high = max(mean - half, float(limits[0])), min(mean + half, float(limits[1]))
    return Estimate(mean, low, high, int(known.size), "student-t")


def paired(
    values: Sequence[float],
    others: Sequence[float],
    confidence: float = 0.95,
    limits: tuple[float, float] = UNLIMITED,
) -> Estimate:
    """How much more of a metric with these limits the first training has than the second, seed by seed, with the interval.

    Raises :class:`ValueError` where their numbers of seeds differ.
    """
    width = limits[1] - limits[0]
    return over_seeds([one - other for one, other in zip(values, others, strict=True)], confidence, (-width, width))
