"""Rates of groups of examples, and how far apart the farthest of them are, with intervals that hold for small groups too.

The groups' examples are separate, so that everything has a closed form:

- difference of two rates: Newcombe's hybrid score interval (1998, method 10; doi:10.1002/(SICI)1097-0258(19980430)17:8<873)
- ratio of two rates: Walter's log interval with half a case added everywhere (1975), which is there at 0 cases too
- the largest difference (fairlearn's ``between_groups``): it is the largest over all ordered pairs. Above, the largest of the
  pairs' upper ends, because the truly farthest pair is one of them; below, the largest of their lower ends at a level divided
  by the number of pairs (Bonferroni). The percentile bootstrap of a range, which noise can only widen, covers a true 0 never
- the smallest ratio: likewise, the other way round
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import NormalDist

from tunesmith.evaluation.statistics import Estimate, score_interval, wilson


@dataclass(frozen=True)
class Rate:
    """How often something is so in a group."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share; NaN of no example."""
        return self.hits / self.n if self.n else math.nan

    def estimate(self, confidence: float) -> Estimate:
        """The share with Wilson's interval."""
        if not self.n:
            return Estimate(math.nan, math.nan, math.nan, 0, "none")
        return Estimate(self.value, *wilson(self.value, self.n, confidence), self.n, "wilson")


def difference(one: Rate, other: Rate, confidence: float) -> tuple[float, float]:
    """The interval of ``one - other``.

    >>> [round(end, 4) for end in difference(Rate(56, 70), Rate(48, 80), 0.95)]
    [0.0524, 0.3339]
    """
    low, high = score_interval(one.value, one.n, confidence)
    other_low, other_high = score_interval(other.value, other.n, confidence)
    gap = one.value - other.value
    return gap - math.hypot(one.value - low, other_high - other.value), gap + math.hypot(
        high - one.value, other.value - other_low
    )


def ratio(one: Rate, other: Rate, confidence: float) -> tuple[float, float]:
    """The interval of ``one / other``."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = math.log((one.hits + 0.5) / (one.n + 0.5)) - math.log((other.hits + 0.5) / (other.n + 0.5))
    spread = sum(1 / (each.hits + 0.5) - 1 / (each.n + 0.5) for each in (one, other))
    half = z * math.sqrt(max(spread, 0.0))
    return math.exp(middle - half), math.exp(middle + half)


def largest_difference(families: Sequence[Sequence[Rate]], confidence: float) -> Estimate:
    """The largest difference between two groups of a family, over all families (TPR and FPR for equalised odds).

    NaN where no family has two groups with examples.
    """
    pairs = _pairs(families)
    n = sum(rate.n for family in families for rate in family)
    if not pairs:
        return Estimate(math.nan, math.nan, math.nan, n, "none")
    value = max(one.value - other.value for one, other in pairs)
    strict = 1 - (1 - confidence) / len(pairs)
    low = max(difference(one, other, strict)[0] for one, other in pairs)
    high = max(difference(one, other, confidence)[1] for one, other in pairs)
    return Estimate(value, min(max(low, 0.0), value), max(high, value), n, "newcombe-range")


def smallest_ratio(families: Sequence[Sequence[Rate]], confidence: float) -> Estimate:
    """The smallest ratio of two groups' rates within a family, over all families; 1 is equal, 0 / 0 is left out."""
    pairs = [(one, other) for one, other in _pairs(families) if one.hits or other.hits]
    n = sum(rate.n for family in families for rate in family)
    if not pairs:
        return Estimate(math.nan, math.nan, math.nan, n, "none")
    value = min(one.value / other.value if other.hits else math.inf for one, other in pairs)
    strict = 1 - (1 - confidence) / len(pairs)
    low = min(ratio(one, other, confidence)[0] for one, other in pairs)
    high = min(ratio(one, other, strict)[1] for one, other in pairs)
    return Estimate(value, min(low, value), max(min(high, 1.0), value), n, "walter-range")


def _pairs(families: Sequence[Sequence[Rate]]) -> list[tuple[Rate, Rate]]:
    return [pair for family in families for pair in permutations([rate for rate in family if rate.n], 2)]
