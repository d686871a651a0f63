"""Cutting examples by a column."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tunesmith.errors import DataError
from tunesmith.evaluation.slices import MOST_VALUES, slice_columns, slices_of


def test_numbers_with_many_values_are_cut_into_quarters() -> None:
    found, left_out = slices_of(pa.array([float(k) for k in range(100)] + [None]))
    assert list(map(len, found.values())) == [25, 25, 25, 25, 1]
    assert "(missing)" in found
    assert left_out == 0


@pytest.mark.parametrize(
    "values",
    [
        [20240101 + 100 * (k // 3) + k % 3 for k in range(36)],
        [1_700_000_000 + 3600 * k for k in range(100)],
        [1_700_000_000.25 + 0.001 * k for k in range(100)],
        [-20240101 - k for k in range(40)],
        [2**60 + 2**20 * k for k in range(40)],
        [1e300 * (1 + 1e-9 * k) for k in range(40)],
    ],
)
def test_quarters_of_numbers_that_are_close_have_names_of_their_own(values: list[float]) -> None:
    found, _ = slices_of(pa.array(values))
    assert [len(rows) for rows in found.values()] == [len(values) // 4] * 4


def test_the_names_of_quarters_are_as_short_as_they_can_be() -> None:
    found, _ = slices_of(pa.array([20240101 + k for k in range(101)]))
    assert "20240101 to 20240126" in found
    assert "0 to 25" in slices_of(pa.array(range(101)))[0]


def test_integers_that_no_floating_point_number_holds_are_cut_too() -> None:
    found, _ = slices_of(pa.array([2**53 + 1 + 2 * k for k in range(40)] + [None]))
    assert len(found) == 5
    assert sum(map(len, slices_of(pa.array([2**62 + k for k in range(40)]))[0].values())) == 40


def test_numbers_with_few_values_are_kept_as_they_are() -> None:
    found, _ = slices_of(pa.array([1, 2, 2]))
    assert {name: rows.tolist() for name, rows in found.items()} == {"2": [1, 2], "1": [0]}


def test_of_many_texts_the_commonest_are_shown_and_the_rest_is_counted() -> None:
    found, left_out = slices_of(pa.array([f"value {k}" for k in range(50)]))
    assert len(found) == MOST_VALUES
    assert left_out == 30


def test_an_unknown_column_lists_those_that_exist() -> None:
    with pytest.raises(DataError, match="It has left, right"):
        slice_columns(pa.table({"left": [1], "right": [2]}), ["zzz"])
