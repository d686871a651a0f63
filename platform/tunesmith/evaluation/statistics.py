"""How sure a metric is: a 95 % interval for each, and for the difference of two models judged on the same examples.

Which interval, chosen by simulated coverage (``tests/unit/evaluation/test_statistics.py``):

- shares of independent examples (accuracy, a class's recall): Wilson's score interval
- other rates between 0 and 1 of which more is better (F1, ROC-AUC): Wilson's with the effective number of examples, that at
  which a share would spread as the metric does over the bootstrap. Of n = 50 and values near 1, percentile intervals hold
  the truth in 55 % of the cases, these in 93 to 98 %
- losses and all else: bias-corrected and accelerated bootstrap (Efron 1987); of n = 50 it covers 91 %, where a few mistakes
  make most of the loss 87 %. The upper end of a Brier score or calibration error with at most three mistakes is at least that
  of a share: more mistakes may be unseen
- the calibration error, which noise inflates: the basic bootstrap of its square, and above at least half the width of the
  percentile interval. Of n = 50, 200 and 1000 it covers 95 to 100 % for calibrated and miscalibrated models alike, where the
  plain basic bootstrap covers 37 to 61 % of calibrated and 80 to 95 % of miscalibrated ones
- differences: MOVER (Zou and Donner 2008, doi:10.1002/sim.3095) from the two intervals and their correlation over shared
  resamples; means over separate examples: MOVER from their intervals
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.tasks.metrics import greater_is_better, per_resample

Array = NDArray[np.float64]
Aggregate = Callable[[Any], Mapping[str, Any]]
"""Weights (None, ``[n]`` or ``[b, n]``) → metrics: ``task.aggregate`` with the records and the state filled in."""

COUNTS = ("support/", "predicted/")
"""Prefixes of the values that count examples and have no interval."""

_RATES = frozenset({"hamming_loss"})
_BIASED = frozenset({"ece", "ece_equal_mass", "ece_classwise"})
_CHUNK = 2_000_000
_WORK = 20_000_000
_GROUPS = 200
_AREAS = frozenset({"roc_auc", "pr_auc"})
_FEW = 3.5
_MOST = {"brier": 2.0, "ece": 1.0, "ece_equal_mass": 1.0}
"""What they are at most: they are means over examples of which each has so much."""
PART = 20_000
"""Examples of a little bootstrap, from so many on."""
_PARTS = 10


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval."""

    value: float
    """NaN where the metric is undefined (the recall of a class that is not there)."""
    low: float
    """Lower end of the interval; NaN where there are too few examples for one."""
    high: float
    n: int
    """How many examples (entities' sentences, a class's examples) it is made from."""
    method: str
    """``wilson``, ``wilson-effective``, ``bca``, ``basic-squared``, ``mover`` or ``none``."""


@dataclass(frozen=True)
class Bootstrap:
    """A model's metrics with their values over resamples of the examples; of two with the same n and seed, row by row alike."""

    n: int
    values: dict[str, float]
    resamples: dict[str, Array]
    """Each metric over the resamples ``[samples]``."""
    jackknife: dict[str, Array]
    """Each metric without one group of examples ``[groups]``."""

    def estimate(self, name: str, confidence: float = 0.95) -> Estimate:
        """The metric with its interval."""
        value, spread = self.values[name], _finite(self.resamples[name])
        n = self._examples(name)
        if math.isnan(value) or n < 1:
            return Estimate(value, math.nan, math.nan, n, "none")
        if self._is_rate(name, spread):
            trials = self._trials(name)
            exact = trials is not None
            effective = trials if trials is not None else _effective(value, spread, min(n, self.n)) * self._lost(name)
            low, high = wilson(value, effective, confidence)
            return Estimate(value, low, high, n, "wilson" if exact else "wilson-effective")
        if self.n < 2 or spread.size < 2:
            return Estimate(value, math.nan, math.nan, n, "none")
        if name in _BIASED:
            low, high = _of_distance(value, spread, confidence)
            return Estimate(value, low, self._at_least(name, high, confidence), n, "basic-squared")
        low, high = _bca(value, spread, _finite(self.jackknife[name]), confidence)
        return Estimate(value, low, self._at_least(name, high, confidence), n, "bca")

    def estimates(self, confidence: float = 0.95) -> dict[str, Estimate]:
        """Every metric with its interval; counts are left out."""
        return {name: self.estimate(name, confidence) for name in self.values if not name.startswith(COUNTS)}

    def _lost(self, name: str) -> float:
        """What part of an area's effective trials counts: its rarest class of m spreads it, and resamples do so by 1/m less."""
        supports = [m for key, m in self.values.items() if key.startswith("support/") and m > 0]
        return 1 - 1 / max(min(supports, default=self.n), 2) if name in _AREAS else 1.0

    def _at_least(self, name: str, high: float, confidence: float) -> float:
        """The upper end, at least that of a share where hardly a mistake was seen: resamples know nothing of unseen ones."""
        most = _MOST.get(name)
        if most is None or (1 - self.values.get("accuracy", 0.0)) * self.n > _FEW:
            return high
        return max(high, most * wilson(self.values[name] / most, self.n, confidence)[1])

    def _examples(self, name: str) -> int:
        trials = self._trials(name)
        if trials is None and "/" in name:
            trials = self.values.get(f"support/{name.split('/', 1)[1]}")
        return self.n if trials is None else int(trials)

    def _trials(self, name: str) -> float | None:
        """Of how many independent examples the metric is the share, or None where it is no such share."""
        if name == "accuracy":
            return float(self.n)
        base, _, label = name.partition("/")
        if f"predicted/{label}" not in self.values:
            return None
        return {"precision": self.values[f"predicted/{label}"], "recall": self.values[f"support/{label}"]}.get(base)

    def _is_rate(self, name: str, spread: Array) -> bool:
        bounded = 0 <= self.values[name] <= 1 and bool(((spread >= 0) & (spread <= 1)).all())
        return bounded and (greater_is_better(name) or name in _RATES)


def bootstrap(
    aggregate: Aggregate,
    n: int,
    samples: int = 1000,
    seed: int = 42,
    part: Callable[[NDArray[np.int64]], Aggregate] | None = None,
) -> Bootstrap:
    """Judges the examples as they are, and over ``samples`` resamples with replacement.

    With ``part``, the judge of some of the examples by their indices, a resample of more than 20,000 examples is one of a part
    of 20,000, blown up to all (the bag of little bootstraps, Kleiner et al. 2014, doi:10.1111/rssb.12050): the work ends to
    grow there. Without it there are fewer resamples from there on, in proportion, but at least 100.
    """
    values = {name: float(value) for name, value in aggregate(None).items()}
    if n == 0:
        return Bootstrap(0, values, dict.fromkeys(values, np.zeros(0)), dict.fromkeys(values, np.zeros(0)))
    if part is not None and n > PART:
        return Bootstrap(n, values, _little_bootstraps(part, values, n, samples, seed), dict.fromkeys(values, np.zeros(0)))
    samples = max(min(samples, _WORK // n), min(samples, 100))
    judge = _vectorised(aggregate, n)
    resamples = _joined([judge(chunk) for chunk in _resample_weights(n, samples, seed)])
    jackknife = _joined([judge(chunk) for chunk in _jackknife_weights(n, seed)])
    return Bootstrap(n, values, resamples, jackknife)


def difference(one: Bootstrap, other: Bootstrap, name: str, confidence: float = 0.95) -> Estimate:
    """How much more of a metric ``one`` has than ``other`` on the same examples in the same order, with the interval."""
    assert one.n == other.n, "differences are between judgements of the same examples"
    a, b = one.estimate(name, confidence), other.estimate(name, confidence)
    value = a.value - b.value
    if not all(map(math.isfinite, (a.low, a.high, b.low, b.high))):
        return Estimate(value, math.nan, math.nan, a.n, "none")
    correlation = _correlation(one.resamples[name], other.resamples[name])
    below, above = a.value - a.low, a.high - a.value
    other_below, other_above = b.value - b.low, b.high - b.value
    low = value - math.sqrt(max(below**2 + other_above**2 - 2 * correlation * below * other_above, 0.0))
    high = value + math.sqrt(max(above**2 + other_below**2 - 2 * correlation * above * other_below, 0.0))
    return Estimate(value, low, high, a.n, "mover")


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The plain mean of metrics of separate examples, each weighing the same, with MOVER's interval for a linear combination.

    Lower end: mean - sqrt(Σ (value - low)²) / k, likewise above (Zou and Donner 2008); the parts are independent. ``n`` is all
    examples together.

    >>> found = mean_of([Estimate(0.5, 0.4, 0.6, 50, "wilson"), Estimate(0.9, 0.8, 0.95, 50, "wilson")])
    >>> round(found.value, 3), round(found.low, 3), found.n
    (0.7, 0.629, 100)
    """
    k, n = len(estimates), sum(one.n for one in estimates)
    value = sum(one.value for one in estimates) / k
    if not all(math.isfinite(end) for one in estimates for end in (one.low, one.high)):
        return Estimate(value, math.nan, math.nan, n, "none")
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / k
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / k
    return Estimate(value, value - below, value + above, n, "mover")


def apart(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two estimates that no pairs connect: MOVER (Zou and Donner 2008) without correlation.

    >>> found = apart(Estimate(0.9, 0.85, 0.94, 200, "wilson"), Estimate(0.8, 0.74, 0.85, 200, "wilson"))
    >>> round(found.value, 2), round(found.low, 3), round(found.high, 3)
    (0.1, 0.029, 0.172)
    """
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, low, high, min(one.n, other.n), "mover")


def wilson(share: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of ``n`` independent trials, with Poisson's end where hardly any failed or succeeded.

    Where at most three of them are failures, or successes, the score interval is too sure of the end on that side (it covers
    84 % of some shares): there the end is Poisson's (Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286, section 4.1.1).

    >>> [round(end, 3) for end in wilson(1.0, 20)], [round(end, 4) for end in wilson(0.998, 500)]
    ([0.839, 1.0], [0.9888, 0.9999])
    """
    low, high = score_interval(share, n, confidence)
    low = min(low, _rare(share * n, confidence) / n)
    high = max(high, 1 - _rare((1 - share) * n, confidence) / n)
    return max(min(low, share), 0.0), min(max(high, share), 1.0)


def score_interval(share: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share of ``n`` independent trials (Wilson 1927), of which Newcombe makes that of a difference.

    >>> [round(end, 4) for end in score_interval(0.998, 500)]
    [0.9888, 0.9996]
    """
    z = _z(confidence)
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def _rare(events: float, confidence: float) -> float:
    """Poisson's lower bound of a rate of which so few events were seen; infinite where they are not few."""
    from scipy.special import gammaincinv

    if events <= 0:
        return 0.0
    return float(gammaincinv(events, 1 - confidence)) if events <= _FEW else math.inf


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _effective(value: float, spread: Array, n: int) -> float:
    """The trials at which a share of this value would spread as the resamples do; ``n`` where they do not spread at all."""
    variance = float(spread.var()) if spread.size > 1 else 0.0
    if variance < 1e-12 or not 0 < value < 1:
        return float(n)
    return max(value * (1 - value) / variance, 1.0)


def _of_distance(value: float, spread: Array, confidence: float) -> tuple[float, float]:
    """The interval of a distance, which is never below 0 and which noise can only enlarge; it holds the value.

    Below: the basic bootstrap (Davison and Hinkley 1997, section 5.2) of the square. Noise adds to it, whatever its true size:
    E[v²] = truth² + b, and once more for a resample of the sample, E[v*²] = v² + b. So 2v² - v*² is free of that bias where
    2v - v* is not: of a well-calibrated model v itself is all noise. Above: at least half the width of the percentile interval
    beyond the value, which needs no correction there, since v is too large rather than too small.
    """
    square, shares = value**2, [(1 - confidence) / 2, (1 + confidence) / 2]
    least, most = np.quantile(spread, shares)
    low = math.sqrt(max(min(2 * square - float(most) ** 2, square), 0.0))
    high = math.sqrt(max(2 * square - float(least) ** 2, 0.0))
    return low, max(high, value + float(most - least) / 2)


def _bca(value: float, spread: Array, jackknife: Array, confidence: float) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated interval, with a delete-a-group jackknife for the acceleration."""
    normal, z, size = NormalDist(), _z(confidence), spread.size
    below = (float((spread < value).mean()) + float((spread <= value).mean())) / 2
    bias = normal.inv_cdf(min(max(below, 1 / size), 1 - 1 / size))
    gaps = jackknife.mean() - jackknife if jackknife.size else np.zeros(1)
    squares = float((gaps**2).sum())
    acceleration = float((gaps**3).sum()) / (6 * squares**1.5) if squares > 1e-300 else 0.0
    ends = [normal.cdf(bias + (bias + side) / (1 - acceleration * (bias + side))) for side in (-z, z)]
    low, high = np.quantile(spread, ends)
    return min(float(low), value), max(float(high), value)


def _correlation(one: Array, other: Array) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    a, b = one[both], other[both]
    if a.size < 2 or a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _little_bootstraps(
    part: Callable[[NDArray[np.int64]], Aggregate], values: Mapping[str, float], n: int, samples: int, seed: int
) -> dict[str, Array]:
    """Each metric over resamples ``[samples]`` of parts of the examples, in which each counts as Poisson(n / part) says.

    The resamples of a part lie around that part's own value; what counts is how far, so they are moved to the value of all.
    A biased metric (the calibration error) is moved in its square, where its bias adds up. There is no jackknife: of so many
    examples the acceleration that it is for is nothing.
    """
    rng = np.random.default_rng(seed)
    found: list[dict[str, Array]] = []
    for rows in (len(share) for share in np.array_split(np.arange(samples), min(_PARTS, samples))):
        chosen = np.sort(rng.choice(n, PART, replace=False, shuffle=False))
        judge = _vectorised(part(chosen), PART)
        own = judge(None)
        step = max(_CHUNK // PART, 1)
        drawn = (rng.poisson(n / PART, size=(min(step, rows - at), PART)).astype(np.float64) for at in range(0, rows, step))
        spread = _joined([judge(weights) for weights in drawn])
        found.append({name: _moved(name, spread[name], float(own[name]), values[name]) for name in values})
    return _joined(found)


def _moved(name: str, spread: Array, own: float, value: float) -> Array:
    """Resamples around a part's own value, moved to around the value of all; a share stays one."""
    if name in _BIASED:
        return np.asarray(np.sqrt(np.maximum(value**2 + spread**2 - own**2, 0.0)))
    moved = value + spread - own
    is_share = 0 <= value <= 1 and bool(((spread >= 0) & (spread <= 1)).all())
    return np.asarray(np.clip(moved, 0.0, 1.0) if is_share else moved)


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _resample_weights(n: int, samples: int, seed: int) -> Iterator[Array]:
    """How often each of ``n`` examples is drawn, ``[b, n]`` a time: in all ``samples`` rows, the same for the same seed."""
    rng = np.random.default_rng(seed)
    rows = max(_CHUNK // n, 1)
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        drawn = rng.integers(0, n, size=(count, n)) + np.arange(count)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def _jackknife_weights(n: int, seed: int) -> Iterator[Array]:
    """All examples but one group of them, ``[b, n]`` a time, for at most 200 groups."""
    group = np.random.default_rng(seed).permutation(n) % _GROUPS
    rows = max(_CHUNK // n, 1)
    groups = min(n, _GROUPS)
    for start in range(0, groups, rows):
        left_out = np.arange(start, min(start + rows, groups))
        yield (group[None, :] != left_out[:, None]).astype(np.float64)


def _vectorised(aggregate: Aggregate, n: int) -> Aggregate:
    """``aggregate`` itself where it takes ``[b, n]`` weights and answers as it does to each row alone, else row by row."""
    probe = np.stack([np.ones(n), np.where(np.arange(n) < max(n // 2, 1), 2.0, 1.0)])
    alone = [aggregate(row) for row in probe]
    try:
        together = aggregate(probe)
        alike = all(
            np.shape(together[name]) == (2,) and np.allclose(together[name], [row[name] for row in alone], equal_nan=True)
            for name in alone[0]
        )
    except (TypeError, ValueError, IndexError):  # asked again row by row, so a true fault still comes out
        alike = False
    return aggregate if alike else lambda weights: per_resample(aggregate, weights, n)
