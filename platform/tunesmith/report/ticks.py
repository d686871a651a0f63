"""Round numbers for the axes of figures."""

from __future__ import annotations

import math


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
