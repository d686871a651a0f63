"""Numbers in the sentences of suites."""

from __future__ import annotations

from tunesmith.evaluation.statistics import Estimate
from tunesmith.tasks.metrics import limits


def share(one: Estimate) -> str:
    """A rate with its interval.

    >>> share(Estimate(0.5, 0.4, 0.62, 100, "wilson"))
    '50.0 % (40.0 to 62.0)'
    """
    return f"{100 * one.value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"


def gap(name: str, one: Estimate) -> str:
    """A difference of a metric with its interval: in points where the metric is a rate.

    >>> gap("accuracy", Estimate(0.05, 0.012, 0.1, 100, "mover")), gap("log_loss", Estimate(0.05, 0.012, 0.1, 100, "mover"))
    ('5.0 points (1.2 to 10.0)', '0.050 (0.012 to 0.100)')
    """
    if limits(name) == (0.0, 1.0):
        return f"{100 * one.value:.1f} points ({100 * one.low:.1f} to {100 * one.high:.1f})"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def number(one: Estimate) -> str:
    """A value with its interval.

    >>> number(Estimate(0.9123, 0.9, 0.93, 100, "mover"))
    '0.912 (0.900 to 0.930)'
    """
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
