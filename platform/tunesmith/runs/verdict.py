"""The flat view of ``metrics.json``: one estimate for each metric of the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Estimate = dict[str, float | None]
Estimates = dict[str, Estimate]


def estimates(verdict: Mapping[str, Any]) -> Estimates:
    """``{metric: {value, low, high, n}}`` of the test split; ``low``, ``high`` and ``n`` are None where there is no interval.

    >>> estimates({"test": {"metrics": {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50}}}})
    {'accuracy': {'value': 0.9, 'low': 0.8, 'high': 0.95, 'n': 50}}
    """
    test = verdict.get("test", {})
    found = test.get("metrics", test) if isinstance(test, Mapping) else {}
    return {name: estimate for name, value in found.items() if (estimate := _estimate(value)) is not None}


def _estimate(value: Any) -> Estimate | None:
    """One metric, whether it is a bare number or one with an interval; None for anything else."""
    if isinstance(value, Mapping) and "value" in value:
        return {key: value.get(key) for key in ("value", "low", "high", "n")}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": float(value), "low": None, "high": None, "n": None}
    return None


def formatted(estimate: Estimate) -> str:
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
