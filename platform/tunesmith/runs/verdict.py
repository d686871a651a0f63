"""The flat view of ``metrics.json``: one estimate for each metric of the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Estimate = dict[str, float | None]
Estimates = dict[str, Estimate]


def estimates(verdict: Mapping[str, Any]) -> Estimates:
    """``{metric: {value, low, high, n}}`` of the judged split, which is the test split where there is one.

    ``low``, ``high`` and ``n`` are None where there is no interval.

    >>> estimates({"test": {"metrics": {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50}}}})
    {'accuracy': {'value': 0.9, 'low': 0.8, 'high': 0.95, 'n': 50}}
    """
    test = verdict.get("test") or verdict.get(str(verdict.get("split"))) or {}
    found = test.get("metrics", test) if isinstance(test, Mapping) else {}
    return {name: estimate for name, value in found.items() if (estimate := _estimate(value)) is not None}


def _estimate(value: Any) -> Estimate | None:
    """One metric, whether it is a bare number or one with an interval; None for anything else."""
    if isinstance(value, Mapping) and "value" in value:
        return {key: value.get(key) for key in ("value", "low", "high", "n")}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": float(value), "low": None, "high": None, "n": None}
    return None
