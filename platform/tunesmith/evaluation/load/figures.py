"""What the requests of a load say: percentiles with intervals, throughput, errors, goodput under a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunesmith.evaluation.load.loops import Shots
from tunesmith.evaluation.statistics import Estimate, wilson

QUANTILES = (0.5, 0.9, 0.99)
PARTS = 10
"""Parts of the time whose throughputs give its interval (batch means)."""
BUSY = 0.9
"""Cores of the client from which on it may be what is measured."""
LATE = 0.005
"""Seconds that the client may be late at its p99."""


@dataclass(frozen=True)
class Figures:
    """One load, summed up."""

    n: int
    """Requests that count."""
    quantiles: dict[str, Estimate]
    """``p50``, ``p90``, ``p99`` of the answered requests, in milliseconds."""
    throughput: Estimate
    """Answered requests a second."""
    error_rate: Estimate
    """Share of requests that were not answered with 200."""
    goodput: Estimate | None
    """Share of all requests that were answered with 200 within the limit; None without one."""
    statuses: dict[str, int]
    """How often each status came; ``none`` where there was no answer in time."""
    cpu: float
    """Cores that the client itself kept busy."""
    notes: tuple[str, ...] = ()

    @property
    def good_per_second(self) -> float:
        """Requests a second that were answered within the limit; all answered ones where there is none."""
        answered = 1 - self.error_rate.value
        if self.goodput is None or answered <= 0:
            return self.throughput.value
        return self.throughput.value * self.goodput.value / answered

    def measures(self) -> dict[str, Estimate]:
        """What a gate can ask for."""
        found = {f"{name}_ms": one for name, one in self.quantiles.items()}
        found |= {"throughput": self.throughput, "error_rate": self.error_rate}
        return found | ({"goodput": self.goodput} if self.goodput is not None else {})


def summed_up(shots: Shots, slo_ms: float | None = None, confidence: float = 0.95) -> Figures:
    """The figures of the requests that were sent after the warm-up and before the end."""
    starts, ends, statuses = np.asarray(shots.starts), np.asarray(shots.ends), np.asarray(shots.statuses, dtype=np.int64)
    first, last = shots.warm_up, shots.warm_up + shots.seconds
    counted = (starts >= first) & (starts < last)
    took, answered = (ends - starts)[counted], statuses[counted] == 200
    n = len(took)
    good = float((answered & (1000 * took <= slo_ms)).mean()) if slo_ms is not None and n else math.nan
    errors = float(1 - answered.mean()) if n else math.nan
    done = ends[(statuses == 200) & (ends >= first) & (ends < last)]
    names, counts = np.unique(statuses[counted], return_counts=True)
    return Figures(
        n=n,
        quantiles={f"p{100 * q:g}": quantile(1000 * took[answered], q, confidence) for q in QUANTILES},
        throughput=per_second(done - first, shots.seconds, confidence),
        error_rate=_share(errors, n, confidence),
        goodput=_share(good, n, confidence) if slo_ms is not None else None,
        statuses={str(name) if name else "none": int(count) for name, count in zip(names, counts, strict=True)},
        cpu=round(shots.cpu, 3),
        notes=tuple(_notes(shots)),
    )


def quantile(values: NDArray[np.float64], q: float, confidence: float = 0.95) -> Estimate:
    """A quantile with the interval of its order statistics (Hahn and Meeker 1991, section 5.2), whatever the distribution.

    An end that would need more values than there are is NaN: the p99 of 100 requests has no upper end. Requests that wait in
    the same queue are alike, so that the true interval of a loaded server is somewhat wider.

    >>> quantile(np.arange(1.0, 1001.0), 0.5)
    Estimate(value=500.5, low=469.0, high=532.0, n=1000, method='order-statistics')
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, "none")
    ordered = np.sort(values)
    below, above = (stats.binom.ppf(share, n, q) for share in ((1 - confidence) / 2, (1 + confidence) / 2))
    low = float(ordered[int(below) - 1]) if below >= 1 else math.nan
    high = float(ordered[int(above)]) if above < n else math.nan
    return Estimate(float(np.quantile(ordered, q)), low, high, n, "order-statistics")


def per_second(at: NDArray[np.float64], seconds: float, confidence: float = 0.95) -> Estimate:
    """Events a second, with Student's interval over ten equal parts of the time (batch means)."""
    counts = np.histogram(at, bins=PARTS, range=(0, seconds))[0] * PARTS / seconds
    value = len(at) / seconds
    half = float(stats.t.ppf((1 + confidence) / 2, PARTS - 1) * counts.std(ddof=1) / math.sqrt(PARTS))
    return Estimate(value, max(0.0, value - half), value + half, len(at), "batch-means")


def _share(value: float, n: int, confidence: float) -> Estimate:
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0, "none")
    return Estimate(value, *wilson(value, n, confidence), n, "wilson")


def _notes(shots: Shots) -> list[str]:
    """That the client may be what is measured."""
    said = []
    if shots.cpu > BUSY:
        said.append(f"The client itself kept {shots.cpu:.2f} cores busy: the server may stand more than is told here.")
    late = float(np.quantile(shots.late, 0.99)) if shots.late else 0.0
    if late > LATE:
        said.append(f"One request of a hundred left {1000 * late:.0f} ms late or more: this machine is too slow for the rate.")
    return said
