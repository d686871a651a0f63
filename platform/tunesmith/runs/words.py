"""Figures in words for people."""

from __future__ import annotations

from collections.abc import Mapping


def span(seconds: float) -> str:
    """A duration for people.

    >>> span(4.2), span(75), span(3 * 3600 + 120)
    ('4 s', '1 min 15 s', '3 h 2 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def formatted(estimate: Mapping[str, float | None]) -> str:
    """A metric for people: ``0.912 (0.894 to 0.929, n 1,000)``.

    >>> formatted({"value": 0.5, "low": None, "high": None, "n": None}), formatted({"value": None})
    ('0.500', 'undefined')
    """
    if estimate["value"] is None:
        return "undefined"
    low, high, n = estimate.get("low"), estimate.get("high"), estimate.get("n")
    inside = [f"{low:.3f} to {high:.3f}"] if low is not None and high is not None else []
    inside += [f"n {int(n):,}"] if n is not None else []
    return f"{estimate['value']:.3f}" + (f" ({', '.join(inside)})" if inside else "")
