"""Times of every kind that Arrow has are put in order."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from tunesmith.data.split_columns import moments_of

pytestmark = pytest.mark.unit

SECOND = 1_000_000
"""Microseconds."""


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("ms"),
        pa.timestamp("us", "Europe/Berlin"),
        pa.timestamp("ns"),
        pa.time32("s"),
        pa.time32("ms"),
        pa.time64("us"),
        pa.time64("ns"),
        pa.duration("s"),
        pa.duration("ns"),
    ],
    ids=str,
)
def test_times_of_every_unit_are_in_microseconds(kind: pa.DataType) -> None:
    units = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[kind.unit]
    whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
    column = pa.chunked_array([pa.array([3 * units, None], whole).cast(kind), pa.array([units], whole).cast(kind)])
    numbers, bad = moments_of(column)
    assert numbers.tolist() == [3 * SECOND, 0, SECOND]
    assert bad.tolist() == [1]


def test_times_finer_than_a_microsecond_are_ordered_with_those_written_as_text() -> None:
    fine = pa.chunked_array([pa.array([1_700_000_000_000_000_001, 1_600_000_000_000_000_999], pa.timestamp("ns"))])
    texts = pa.chunked_array([["2023-11-14T22:13:20", "2020-09-13T12:26:40"]])
    np.testing.assert_array_equal(moments_of(fine)[0], moments_of(texts)[0])


def test_dates_are_times_and_spans_of_months_are_not() -> None:
    dates = pa.chunked_array([pa.array([dt.date(1970, 1, 2)])])
    assert moments_of(dates)[0].tolist() == [24 * 3600 * SECOND]
    spans = pa.chunked_array([pa.array([pa.MonthDayNano([1, 0, 0])])])
    assert moments_of(spans)[1].tolist() == [0]
