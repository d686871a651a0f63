"""Small things about Arrow tables: columns from any Python values, one type for several files, class names of Hugging Face."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.types as types


def array(values: Sequence[Any]) -> pa.Array:
    """Python values as an Arrow array; where they are of different kinds (``1`` and ``"a"``), all as text.

    >>> array([1, None, 2]).type, array([1, "a"]).to_pylist()
    (DataType(int64), ['1', 'a'])
    """
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str | None:
    """A value as text: text as it is, dates and times in ISO 8601, anything else as JSON.

    NaN, with which pandas marks what is missing, is none.

    >>> as_text("a"), as_text(1), as_text(True), as_text([1]), as_text(None), as_text(float("nan"))
    ('a', '1', 'true', '[1]', None, None)
    >>> as_text(dt.date(2026, 1, 31))
    '2026-01-31'
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return str(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def from_rows(rows: Sequence[dict[str, Any]], names: dict[str, None]) -> pa.Table:
    """A table of JSON objects; what an object lacks is null. ``names`` holds the columns met so far, and gets the new ones.

    Raises UnicodeEncodeError for a lone surrogate in a text or name; then ``names`` is as it was.
    """
    found = {**names, **dict.fromkeys(name for row in rows for name in row)}
    table = pa.table({name: array([row.get(name) for row in rows]) for name in found})
    names.update(found)
    return table


def plain(table: pa.Table) -> pa.Table:
    """The table with class indices of Hugging Face replaced by their names, and without dictionary and large types."""
    names = class_names(table.schema)
    for index, column in enumerate(table.schema):
        if column.name in names:
            new = _named(table[index], names[column.name])
        else:
            wanted = _plain_type(column.type)
            new = table[index] if wanted == column.type else _cast(table[index], wanted)
        if new is not table[index]:
            table = table.set_column(index, column.name, new)
    return table.replace_schema_metadata(None)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes of each ``ClassLabel`` column (or list of them), from the metadata that ``datasets`` writes."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if not metadata:
        return {}
    features = json.loads(metadata).get("info", {}).get("features") or {}
    found = {}
    for name, feature in features.items():
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names"):
            found[name] = list(feature["names"])
    return found


def common_type(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type that holds values of all these types: numbers widen, different kinds become text.

    So do integers for which Arrow has no type; times are in microseconds where units differ, for nanoseconds end in 2262.

    >>> common_type([pa.int64(), pa.float64()]), common_type([pa.null(), pa.bool_()]), common_type([pa.int64(), pa.string()])
    (DataType(double), DataType(bool), DataType(string))
    >>> common_type([pa.uint64(), pa.int64()]), common_type([pa.timestamp("us"), pa.timestamp("ns")])
    (DataType(string), TimestampType(timestamp[us]))
    """
    found = pa.null()
    for kind in kinds:
        if found.equals(kind) or types.is_null(kind):
            continue
        if types.is_null(found):
            found = kind
            continue
        try:
            merged = pa.unify_schemas([pa.schema([("x", found)]), pa.schema([("x", kind)])], promote_options="permissive")
            found = _wide_enough(merged.field(0).type, found, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            found = pa.string()
    return found


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of ``schema``: cast, or as text, or null where it lacks one.

    A cast to another number or unit may lose its last digits, as those of an integer beyond 2^53 among floating-point numbers.
    """
    columns = []
    for column in schema:
        if column.name not in table.column_names:
            columns.append(pa.nulls(len(table), column.type))
            continue
        values = table[column.name]
        if values.type != column.type:
            text = types.is_string(column.type) and not types.is_string(values.type)
            values = array([as_text(v) for v in values.to_pylist()]) if text else values
            values = values.cast(column.type, safe=False)
        columns.append(values)
    return pa.table(columns, schema=schema)


def is_scalar(kind: pa.DataType) -> bool:
    """Whether values of this type are single numbers, texts, truth values or times."""
    return not (
        types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    )


class TableWriter:
    """An Arrow file that grows by record batches of a useful size, however small the tables that come in."""

    ROWS = 8192
    """Rows from which a record batch is written."""
    BYTES = 32 << 20
    """The same in bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._waiting.clear()
        self.close()

    def write(self, table: pa.Table) -> None:
        """Add rows; the first table sets the schema. Raises ValueError where a later one differs."""
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), table.schema)
            self._schema = table.schema
        if not table.schema.equals(self._schema, check_metadata=True):
            raise ValueError(f"{self._path.name}: {table.schema} differs from the first batch's {self._schema}")
        self._waiting.append(table)
        self._rows += len(table)
        self._bytes += table.nbytes
        if self._rows >= self.ROWS or self._bytes >= self.BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is waiting, and the end of the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting, self._rows, self._bytes = [], 0, 0


def _wide_enough(merged: pa.DataType, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """What Arrow makes of two types, or another where values of one of them may not fit into it."""
    inner = merged
    while types.is_list(inner):
        inner, one, other = inner.value_type, one.value_type, other.value_type
    if types.is_signed_integer(inner) and types.is_uint64(one) != types.is_uint64(other):
        return pa.string()
    if one != other and types.is_timestamp(merged) and merged.unit == "ns":
        return pa.timestamp("us", merged.tz)
    if one != other and types.is_duration(merged) and merged.unit == "ns":
        return pa.duration("us")
    return merged


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """The column as a plain type, value by value where Arrow has no cast for it."""
    if types.is_dictionary(column.type):
        return pa.chunked_array([chunk.dictionary.cast(wanted).take(chunk.indices) for chunk in column.chunks], wanted)
    try:
        return column.cast(wanted)
    except pa.ArrowNotImplementedError:
        return pa.chunked_array([pa.array(chunk.to_pylist(), wanted) for chunk in column.chunks], wanted)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_large_list(kind) or types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal(kind):
        return pa.float64()
    return kind


def _named(column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Class indices, or lists of them, as names; -1 (no class, by convention of ``datasets``) is null."""

    def one(index: Any) -> Any:
        if isinstance(index, list):
            return [one(i) for i in index]
        return names[index] if isinstance(index, int) and 0 <= index < len(names) else None

    nested = types.is_list(column.type) or types.is_large_list(column.type)
    return pa.chunked_array([pa.array([one(v) for v in column.to_pylist()], pa.list_(pa.string()) if nested else pa.string())])
