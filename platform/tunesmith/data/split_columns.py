"""The columns by which splits are cut and kept apart: ``data.split.group`` and ``data.split.time``."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from tunesmith.data import rows
from tunesmith.data.ingest import Ingested
from tunesmith.errors import DataError, nearest
from tunesmith.recipe.data import DataSection

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def method(data: DataSection, train: Ingested) -> str:
    """What ``data.split.by: auto`` comes to."""
    if data.split.by != "auto":
        return data.split.by
    if data.split.group:
        return "group"
    if data.split.time:
        return "time"
    return "stratified" if train.strata is not None else "random"


def groups_of(train: Ingested, name: str | None) -> np.ndarray:
    """A code for each row's group. Raises :class:`DataError` where there is no such column, or a row has no value in it."""
    column = column_of(train, name, "group")
    if column.null_count:
        raise _no_value(train, column, "group", str(name))
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def times_of(train: Ingested, name: str | None) -> np.ndarray:
    """Each row's time as a number that orders them. Raises :class:`DataError` as :func:`groups_of`, and for what is no time."""
    column = column_of(train, name, "time")
    if column.null_count:
        raise _no_value(train, column, "time", str(name))
    numbers, bad = moments_of(column)
    if len(bad):
        raise no_times(train, bad, column.take(pa.array(bad)), str(name))
    return numbers


def moments_of(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Times as numbers that order them ``[n]``, dates in microseconds; and the indices of those that are none."""
    kind, empty = column.type, np.flatnonzero(np.asarray(column.is_null()))
    if types.is_temporal(kind) and not types.is_interval(kind):
        # microseconds whatever the unit: moments of several columns are compared
        way = pa.time64("us") if types.is_time(kind) else pa.duration("us") if types.is_duration(kind) else pa.timestamp("us")
        return np.asarray(column.cast(way, safe=False).cast(pa.int64()).fill_null(0)), empty
    if types.is_integer(kind) or types.is_floating(kind):
        numbers = np.asarray(column.fill_null(0))
        return numbers, np.union1d(empty, np.flatnonzero(~np.isfinite(numbers.astype(np.float64))))
    filled = np.flatnonzero(~np.asarray(column.is_null()))
    numbers, bad = _parsed(column.take(pa.array(filled)).to_pylist())
    whole = np.zeros(len(column), numbers.dtype)
    whole[filled] = numbers
    return whole, np.union1d(empty, filled[bad])


def is_number(column: pa.ChunkedArray) -> bool:
    """Whether times are written as numbers, of whatever unit, rather than as moments."""
    if types.is_temporal(column.type):
        return False
    try:
        return all(value is None or np.isfinite(float(value)) for value in column.to_pylist())
    except (TypeError, ValueError):
        return False


def _parsed(texts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Texts as numbers where all are numbers, else as ISO 8601 moments (UTC where no zone is said); and which are neither."""
    try:
        numbers = np.array([float(text) for text in texts])
        return numbers, np.flatnonzero(~np.isfinite(numbers))
    except (TypeError, ValueError):
        pass
    moments = np.zeros(len(texts), dtype=np.int64)
    bad = []
    for index, text in enumerate(texts):
        try:
            moment = dt.datetime.fromisoformat(str(text).strip())
        except ValueError:
            bad.append(index)
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        moments[index] = (moment - _EPOCH) // dt.timedelta(microseconds=1)
    return moments, np.asarray(bad, dtype=np.int64)


def column_of(train: Ingested, name: str | None, what: str) -> pa.ChunkedArray:
    """A column of the user's data by its own name, also where it is a role. Raises :class:`DataError` where it is not there."""
    if name is None:
        raise DataError(f"data.split.by: {what} needs to know the column\n    → Set data.split.{what}.")
    kept = kept_as(train, name)
    if kept is None:
        known = [n for n in train.schema.names if n not in rows.OWN]
        close = nearest(name, known)
        hint = f"Did you mean {close!r}? " if close else ""
        raise DataError(
            f"data.split.{what}: data.{train.name} has no column {name!r}\n    → {hint}Its columns are {', '.join(known)}."
        )
    return train.column(kept)


def kept_as(data: Ingested, name: str) -> str | None:
    """The name under which a column of the user's data is kept; None where it is not there."""
    role = next((role for role, column in data.mapping.items() if column == name), None)
    kept = role or (name if name in data.schema.names else f"{name}_")
    return kept if kept in data.schema.names and kept not in rows.OWN else None


def place(data: Ingested, index: int) -> str:
    """File and row of a good row, for messages."""
    line = data.take(np.array([index]))
    return f"{data.files[line[rows.FILE][0].as_py()]} row {line[rows.ROW][0].as_py()}"


def no_times(data: Ingested, bad: np.ndarray, values: pa.ChunkedArray, name: str) -> DataError:
    """The error that names the rows ``bad`` whose ``values`` in the column ``name`` are no times."""
    shown = "; ".join(f"{place(data, int(row))}: {values[i].as_py()!r}" for i, row in enumerate(bad[:10]))
    return DataError(
        f"data.split.time: {len(bad)} values of the column {name!r} are no times: {shown}"
        "\n    → Write them as ISO 8601 (2026-01-31 or 2026-01-31T12:00:00), or as numbers."
    )


def _no_value(train: Ingested, column: pa.ChunkedArray, what: str, name: str) -> DataError:
    empty = np.flatnonzero(np.asarray(column.is_null()))
    shown = "; ".join(place(train, int(i)) for i in empty[:10])
    return DataError(
        f"data.split.{what}: {len(empty)} rows have no value in the column {name!r}: {shown}"
        "\n    → Fill them in, or remove these rows: without it they cannot be kept on one side."
    )
