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
