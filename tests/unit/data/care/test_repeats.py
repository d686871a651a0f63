"""Duplicates and conflicts are counted by definition, whatever the rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.care import repeats
from tunesmith.data.care.groups import codes_of, pair_codes

pytestmark = pytest.mark.unit
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30)


@given(ROWS)
def test_duplicates_are_the_rows_after_the_first(rows: list[tuple[int, int]]) -> None:
    inputs, targets = (codes_of(np.array(column)) for column in zip(*rows, strict=True))
    found = repeats.duplicates(pair_codes(inputs, targets))
    assert found.gone.tolist() == [k for k, row in enumerate(rows) if row in rows[:k]]
    assert found.rows == len(rows) - len(set(rows))
    assert found.groups == sum(times > 1 for times in Counter(rows).values())
    assert all(rows[row] == rows[other] and rows.index(rows[row]) == other for row, other in found.examples)


@given(ROWS, st.booleans())
def test_conflicts_are_inputs_with_several_targets(rows: list[tuple[int, int]], majority: bool) -> None:
    inputs, targets = (codes_of(np.array(column)) for column in zip(*rows, strict=True))
    found = repeats.conflicts(inputs, targets, majority)
    meant = {one: Counter(target for other, target in rows if other == one) for one, _ in rows}
    concerned = [k for k, (one, _) in enumerate(rows) if len(meant[one]) > 1]

    def leading(one: int) -> int:
        return max(meant[one].values())

    def wins(one: int, target: int) -> bool:
        return majority and meant[one][target] == leading(one) and list(meant[one].values()).count(leading(one)) == 1

    assert found.rows == len(concerned)
    assert found.gone.tolist() == [k for k in concerned if not wins(*rows[k])]
    for row, other in found.examples:
        assert rows[row][0] == rows[other][0]
        assert rows[row][1] != rows[other][1]


def test_near_rows_with_another_target_stay() -> None:
    near, inputs, targets = np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]), np.array([0, 1, 0, 0])
    found = repeats.near_duplicates(near, inputs, targets)
    assert (found.rows, found.groups, found.gone.tolist()) == (2, 1, [2])
    assert found.examples == [(1, 0), (2, 0)]


def test_exact_copies_are_no_near_duplicates() -> None:
    found = repeats.near_duplicates(np.zeros(4, int), np.array([0, 0, 1, 1]), np.zeros(4, int))
    assert (found.rows, found.gone.tolist()) == (1, [2])
