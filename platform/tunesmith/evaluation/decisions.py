"""Decisions from intervals: better, equivalent, worse or not known yet, and how many examples would tell.

A difference of two models is decided by its interval, turned so that more is better, and by a *margin*: the loss that one is
willing to bear.

=============  =============================================================================================================
verdict        the interval of A - B
=============  =============================================================================================================
better         lies above 0, and Holm's p is at most 1 - confidence
equivalent     lies inside ±margin (and not above 0): two one-sided tests (Schuirmann 1987, doi:10.1007/BF01068419)
worse          lies below 0 and reaches below -margin, and Holm's p is at most 1 - confidence
inconclusive   anything else
=============  =============================================================================================================

Apart from the verdict a difference is *not worse* (non-inferior) where its lower end is at or above -margin, whatever the upper
end is; that is what a gate asks for. One interval decides all of it. With 95 % each side is a test at 2.5 %, as ICH E9 (1998,
section 2.2.3) has it for non-inferiority; the 90 % interval of a TOST at 5 % would say "equivalent" a little earlier.

Of a family of measures each is told apart by Holm's step-down p (Holm 1979), so that of models that are alike none is called
better or worse in more than 5 % of the cases. "Not worse" needs no correction where *all* measures have to pass: a model slips
through such an intersection-union test in at most α of the cases, however many there are (Berger 1982,
doi:10.2307/1268126).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluation.statistics import Estimate

Verdict = Literal["better", "equivalent", "inconclusive", "worse"]

POWER = 0.8
"""How often so many examples as are named would settle a question, if the truth is as it looks now."""

MOST = 10**9
"""Examples beyond which none are named: nobody has so many."""

_NORMAL = NormalDist()


def decide(gain: Estimate, margin: float, p: float, alpha: float = 0.05) -> Verdict:
    """The verdict on a difference of which more is better; see the module.

    >>> [decide(Estimate(0, low, high, 100, "mover"), 0.01, 0.001) for low, high in ((0.002, 0.03), (-0.004, 0.006))]
    ['better', 'equivalent']
    >>> [decide(Estimate(0, low, high, 100, "mover"), 0.01, 0.001) for low, high in ((-0.03, -0.002), (-0.03, 0.02))]
    ['worse', 'inconclusive']
    """
    if gain.low > 0 and p <= alpha:
        return "better"
    if gain.low >= -margin and gain.high <= margin:
        return "equivalent"
    return "worse" if gain.high < 0 and p <= alpha else "inconclusive"


def not_worse(gain: Estimate, margin: float) -> bool:
    """Whether at most ``margin`` is lost (non-inferiority); False where there is no interval."""
    return gain.low >= -margin


def turned(difference: Estimate, greater_is_better: bool) -> Estimate:
    """The difference as a gain: its sign changed where less is better.

    >>> turned(Estimate(0.2, 0.1, 0.4, 50, "mover"), False)
    Estimate(value=-0.2, low=-0.4, high=-0.1, n=50, method='mover')
    """
    if greater_is_better:
        return difference
    return Estimate(-difference.value, -difference.high, -difference.low, difference.n, difference.method)


def mcnemar(fixed: int, broken: int) -> float:
    """Two-sided exact p that examples are as likely fixed as broken: McNemar's (1947), by the binomial of the discordant pairs.

    >>> round(mcnemar(10, 2), 5), mcnemar(0, 0)
    (0.03857, 1.0)
    """
    from scipy.stats import binomtest

    return float(binomtest(fixed, fixed + broken, 0.5).pvalue) if fixed + broken else 1.0


def p_below(estimate: Estimate, threshold: float, confidence: float = 0.95) -> float:
    """One-sided p of "at least the threshold": small where the estimate is clearly below it; 1 where there is no interval.

    The normal p whose quantile is the interval's upper end, so that it is (1 - confidence) / 2 where the interval ends there.

    >>> round(p_below(Estimate(0.8, 0.7, 0.9, 60, "wilson"), 0.9), 4)
    0.025
    """
    half = estimate.high - estimate.value
    gap = threshold - estimate.value
    if not (math.isfinite(half) and math.isfinite(gap)):
        return 1.0
    if half <= 0:
        return 0.0 if gap > 0 else 1.0
    return 1 - _NORMAL.cdf(gap / half * _z(confidence))


def p_above(estimate: Estimate, threshold: float, confidence: float = 0.95) -> float:
    """One-sided p of "at most the threshold": small where the estimate is clearly above it."""
    return p_below(turned(estimate, False), -threshold, confidence)


def p_paired(value: float, resampled: NDArray[np.float64], n: int) -> float:
    """Two-sided p that there is no difference, by its values over shared resamples of n examples: Student's t of their spread.

    Far out, where Holm looks, the spread of 1,000 resamples is known much better than their outermost quantiles are. Where they
    do not spread at all, p is that of the sign test of n examples that all differ in one way.

    >>> round(p_paired(0.2, np.random.default_rng(0).normal(0.2, 0.1, 1000), 500), 3)
    0.041
    """
    from scipy.stats import t

    known = resampled[np.isfinite(resampled)]
    if n < 2 or known.size < 2 or not math.isfinite(value):
        return 1.0
    error = float(known.std()) * math.sqrt(n / (n - 1))
    if error < 1e-15:
        return 1.0 if abs(value) < 1e-15 else 2 * 0.5**n
    return float(2 * t.sf(abs(value) / error, n - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of a family, adjusted (Holm 1979, https://www.jstor.org/stable/4615733).

    >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda k: ps[k])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def detectable(deviation: float, n: int, confidence: float = 0.95, power: float = POWER) -> float:
    """The smallest true difference that is seen (its interval excludes 0) with this power: the minimum detectable effect.

    ``deviation`` is the standard deviation of one example's difference: of shares that is √(discordant share - difference²).

    >>> round(detectable(math.sqrt(0.05), 1000), 4)
    0.0198
    """
    return (_z(confidence) + _NORMAL.inv_cdf(power)) * deviation / math.sqrt(n) if n else math.nan


def samples(deviation: float, gap: float, confidence: float = 0.95, power: float = POWER, sides: int = 1) -> int | None:
    """Examples with which an interval is expected to end ``gap`` short of its middle, with this power; None beyond all reach.

    ``sides`` 2 asks it of both its ends at once (equivalence): each may then fail in half the cases only (Chow, Shao and Wang
    2008, *Sample Size Calculations in Clinical Research*, section 3.2). With 5 % discordant pairs and a margin of 2 points:

    >>> samples(math.sqrt(0.05), 0.02)
    982
    """
    if not gap > 0 or not math.isfinite(deviation):
        return None
    wanted = math.ceil(((_z(confidence) + _NORMAL.inv_cdf(1 - (1 - power) / sides)) * deviation / gap) ** 2)
    return max(wanted, 1) if wanted <= MOST else None


def settling(gain: Estimate, margin: float, deviation: float, confidence: float = 0.95) -> int | None:
    """Examples, all in all, that would settle an inconclusive difference, if the truth is what it looks like now.

    The easiest of the ways out: an interval on one side of 0, or inside the margin.
    """
    apart = samples(deviation, abs(gain.value), confidence)
    within = samples(deviation, margin - abs(gain.value), confidence, sides=2)
    return min((n for n in (apart, within) if n is not None), default=None)


def deviation_of(estimate: Estimate, confidence: float = 0.95) -> float:
    """The standard deviation of one example's part in a measure, as its interval has it; NaN where there is none."""
    return (estimate.high - estimate.low) / (2 * _z(confidence)) * math.sqrt(estimate.n)


def _z(confidence: float) -> float:
    return _NORMAL.inv_cdf((1 + confidence) / 2)
