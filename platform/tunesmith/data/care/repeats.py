"""Duplicates and contradictions within a split: which rows they are, and which of them go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tunesmith.data.care import groups

SHOWN = 10
"""Examples of each kind of finding that are kept."""


@dataclass
class Finding:
    """One kind of trouble in one split, or between two."""

    rows: int = 0
    """Rows concerned: copies without the first of each, all rows of a contradiction, rows to judge by that leak."""
    groups: int = 0
    """Different inputs concerned."""
    gone: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Rows to leave out."""
    examples: list[tuple[int, int]] = field(default_factory=list)
    """The first rows concerned, each with the row that it belongs to."""
    flagged: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """All rows concerned, sorted."""


def duplicates(same: np.ndarray) -> Finding:
    """Rows that repeat an earlier one; ``same`` ``[n]`` has equal codes for equal input and target."""
    extra = np.flatnonzero(groups.repeated(same))
    return Finding(len(extra), len(np.unique(same[extra])), extra, _with_first(extra[:SHOWN], same), extra)


def near_duplicates(near: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> Finding:
    """Rows that are nearly, and not exactly, what an earlier one is; codes ``[n]`` each.

    Only those with the same target as an earlier row of their group may go: near inputs with different targets (``good``,
    ``not good``) are what a model learns most from.
    """
    first_of_input = ~groups.repeated(inputs)
    distinct = np.flatnonzero(first_of_input)
    extra = distinct[groups.repeated(near[distinct])]
    alike = groups.pair_codes(near, targets)
    gone = np.flatnonzero(groups.repeated(alike) & ~groups.repeated(groups.pair_codes(inputs, targets)))
    return Finding(len(extra), len(np.unique(near[extra])), gone, _with_first(extra[:SHOWN], near), extra)


def conflicts(inputs: np.ndarray, targets: np.ndarray, majority: bool) -> Finding:
    """Rows whose input also stands there with another target; codes ``[n]`` each.

    All of them go, or with ``majority`` those whose target is not the most frequent one of their input.
    """
    both = groups.pair_codes(inputs, targets)
    _, first = np.unique(both, return_index=True)
    targets_of_input = np.bincount(inputs[first], minlength=len(inputs) + 1)
    concerned = np.flatnonzero(targets_of_input[inputs] > 1)
    times = groups.sizes(both)
    most = np.zeros(len(inputs) + 1, dtype=np.int64)
    np.maximum.at(most, inputs, times)
    leading = times == most[inputs]
    leaders = np.bincount(inputs[first], weights=leading[first], minlength=len(inputs) + 1)
    wins = leading & (leaders[inputs] == 1)
    gone = concerned[~wins[concerned]] if majority else concerned
    later = concerned[groups.repeated(inputs[concerned])]
    later = later[targets[later] != targets[_firsts(inputs)[later]]]
    return Finding(len(concerned), len(np.unique(inputs[concerned])), gone, _with_first(later[:SHOWN], inputs), concerned)


def _firsts(codes: np.ndarray) -> np.ndarray:
    """The first row with the same code, ``[n]``."""
    return np.asarray(np.unique(codes, return_index=True)[1][groups.codes_of(codes)])


def _with_first(chosen: np.ndarray, codes: np.ndarray) -> list[tuple[int, int]]:
    firsts = _firsts(codes) if len(chosen) else codes
    return [(int(row), int(firsts[row])) for row in chosen]
