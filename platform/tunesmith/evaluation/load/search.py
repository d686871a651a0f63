"""The highest rate that a server stands: doubled until it fails, then halved in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.evaluation.load.figures import Figures

GOOD = 0.99
"""The share of requests that must be answered within the limit for a rate to be stood."""
BISECTIONS = 4
"""Halvings of the gap between the last rate that was stood and the first that was not: 2⁻⁴ of it is left."""
DOUBLINGS = 12


@dataclass(frozen=True)
class Step:
    """One rate that was tried."""

    rate: float
    figures: Figures
    stood: bool


@dataclass(frozen=True)
class Found:
    """Where the server is saturated."""

    rate: float
    """The highest rate that was stood, in requests a second; 0 where none was."""
    steps: tuple[Step, ...]


def find_rate(measure: Callable[[float], Figures], start: float, told: Callable[[Step], None] | None = None) -> Found:
    """Search from ``start`` requests a second; ``measure`` makes the load at a rate, with a limit.

    A rate is stood where 99 % of its requests are answered within the limit.
    """
    steps: list[Step] = []

    def stands(rate: float) -> bool:
        figures = measure(rate)
        stood = figures.goodput is not None and figures.goodput.value >= GOOD
        steps.append(Step(rate, figures, stood))
        if told is not None:
            told(steps[-1])
        return stood

    low, high = 0.0, start
    for _ in range(DOUBLINGS):
        if not stands(high):
            break
        low, high = high, 2 * high
    while not low and high > start / 2**DOUBLINGS:
        low, high = (high / 2, high) if stands(high / 2) else (0.0, high / 2)
    if low:
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if stands(middle) else (low, middle)
    return Found(low, tuple(steps))
