"""Round numbers for the axes of figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.report.words import is_percent


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two ends, about ``count`` of them.

    >>> ticks(0.1, 1.0, 5)
    [0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
    """
    raw = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw), raw)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis that shows these values; it does not go below 0 for values that do not."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room


def in_units(name: str, value: float) -> str:
    """A value of the metric ``name`` as a tick's text."""
    return f"{100 * value:.0f}\u202f%" if is_percent(name) else in_short(value)


def in_short(value: float) -> str:
    """A number as a tick's text."""
    return f"{value:,.0f}" if abs(value) >= 10 and value == round(value) else f"{value:.3g}"
