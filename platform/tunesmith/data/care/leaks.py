"""Rows to judge by whose input also stands in ``train``: what they are called in a message, and how they are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.data.care.repeats import SHOWN, Finding
from tunesmith.errors import DataError


def leaks(train: np.ndarray, judged: np.ndarray, codes: np.ndarray) -> Finding:
    """The rows ``judged`` with the code of a row in ``train``, shown with that row; ``codes`` ``[n]`` are of all rows."""
    values, first = np.unique(codes[train], return_index=True)
    leaking = judged[np.isin(codes[judged], values)]
    partners = train[first[np.searchsorted(values, codes[leaking[:SHOWN]])]]
    pairs = list(zip(leaking[:SHOWN].tolist(), partners.tolist(), strict=True))
    return Finding(len(leaking), len(np.unique(codes[leaking])), leaking, pairs, leaking)


def refusal(name: str, how: str, rows: int, total: int, examples: Sequence[dict[str, Any]]) -> DataError:
    """The error that names leaking rows of the split ``name``; ``how`` is ``exactly`` or ``nearly``."""
    lines = [
        f"data.{name}: {rows:,} of {total:,} rows also stand in data.train, {how}; a model is not tested on what it learned"
    ]
    lines += [f"  {_place(one)} = {_place(one['of'])}: {one['input']!r}" for one in examples]
    if rows > len(examples):
        lines.append(f"  … and {rows - len(examples):,} more")
    lines.append(
        f"    → Remove these rows from data.{name} or data.train, or set data.leakage: move (they leave the evaluation) or "
        "report (they stay and the report says so)."
    )
    return DataError("\n".join(lines))


def _place(card: dict[str, Any]) -> str:
    return f"{card['file']}, row {card['row']}"
