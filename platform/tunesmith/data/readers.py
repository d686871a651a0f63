"""Files into tables, a few thousand rows at a time, in constant memory; rows that cannot be read are reported, not lost.

CSV and JSON are read with the standard library rather than ``pyarrow.csv`` and ``pyarrow.json``: those guess each column's type
from the first block and fail in a later one, turn the text ``NA`` into a missing value, and do not tell the line of a bad row.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunesmith import storage
from tunesmith.data import tables
from tunesmith.errors import DataError

ROWS = 4096
"""Rows of a chunk, at most."""

CHARACTERS = 1 << 25
"""Longest CSV cell; an unclosed quote swallows no more than this."""

_READ = 1 << 20
_SURROGATES = re.compile("[\udc80-\udcff]")
_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class BadRow:
    """A row that could not even be read."""

    row: int
    reason: str
    raw: str = ""


@dataclass(frozen=True)
class Chunk:
    """Some rows of one file, in order."""

    file: str
    rows: np.ndarray
    """Where each row stands in the file, int64 ``[n]``, from 1: the line of a CSV or JSON Lines file, else the row."""
    table: pa.Table
    """The user's columns, as they are called in the file."""
    bad: list[BadRow] = field(default_factory=list)
    """Rows that could not be read, between or after those of this chunk."""
    is_folder: bool = False
    """Whether ``file`` is a folder, of which each row is a file."""


def read_csv(file: str) -> Iterator[Chunk]:
    """Rows of a CSV file, every cell as text, empty cells as null. Delimiter from the ending or the header.

    A row with another number of cells than the header, a broken quote or bytes that are not UTF-8 is a :class:`BadRow`.
    Raises :class:`DataError` for an empty file and a header that cannot be one.
    """
    delimiter = delimiter_of(file)
    csv.field_size_limit(CHARACTERS)
    with open_file(file) as stream:
        reader = csv.reader(
            io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline=""), delimiter=delimiter, strict=True
        )
        header = _header(file, reader)
        lines: list[int] = []
        cells: list[list[str]] = []
        bad: list[BadRow] = []
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                bad.append(BadRow(line, f"not valid CSV: {error}"))
                continue
            if not row:  # a blank line
                continue
            if len(row) != len(header):
                reason = f"{len(row)} cells, but the header has {len(header)} columns"
                bad.append(BadRow(line, reason, _raw(delimiter.join(row))))
                continue
            lines.append(line)
            cells.append(row)
            if len(cells) + len(bad) >= ROWS:
                yield _csv_chunk(file, header, lines, cells, bad)
                lines, cells, bad = [], [], []
        yield _csv_chunk(file, header, lines, cells, bad)


def read_json(file: str) -> Iterator[Chunk]:
    """Objects of a JSON Lines file, or of one JSON array. A line that is no JSON object is a :class:`BadRow`."""
    with open_file(file) as stream:
        items = json_items(file, stream)
        names: dict[str, None] = {}
        numbers: list[int] = []
        rows: list[dict[str, Any]] = []
        bad: list[BadRow] = []
        for number, item in items:
            if isinstance(item, dict):
                numbers.append(number)
                rows.append(item)
            else:
                bad.append(item if isinstance(item, BadRow) else BadRow(number, "not a JSON object", json.dumps(item)))
            if len(rows) + len(bad) >= ROWS:
                yield _json_chunk(file, numbers, rows, names, bad)
                numbers, rows, bad = [], [], []
        if rows or bad:
            yield _json_chunk(file, numbers, rows, names, bad)


def read_parquet(file: str) -> Iterator[Chunk]:
    """Rows of a Parquet file."""
    found, path = storage.filesystem(file)
    try:
        with found.open_input_file(path) as stream, pq.ParquetFile(stream) as parquet:
            yield from _numbered(file, parquet.iter_batches(batch_size=ROWS), parquet.schema_arrow)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} cannot be read as Parquet: {_first_line(error)}\n    → Write it again.") from error


def read_arrow(file: str) -> Iterator[Chunk]:
    """Rows of an Arrow IPC file (Feather) or stream, as ``datasets`` writes them."""
    found, path = storage.filesystem(file)
    try:
        with found.open_input_file(path) as stream:
            magic = stream.read(6)
            stream.seek(0)
            if magic == b"ARROW1":
                reader = pa.ipc.open_file(stream)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
                yield from _numbered(file, batches, reader.schema)
            else:
                opened = pa.ipc.open_stream(stream)
                yield from _numbered(file, opened, opened.schema)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} cannot be read as Arrow: {_first_line(error)}\n    → Write it again.") from error


READERS = {"csv": read_csv, "json": read_json, "parquet": read_parquet, "arrow": read_arrow}


def open_file(file: str) -> io.BufferedReader:
    """The file's bytes as a stream; ``.gz``, ``.bz2`` and ``.zst`` are decompressed."""
    found, path = storage.filesystem(file)
    return io.BufferedReader(found.open_input_stream(path), _READ)


def delimiter_of(file: str) -> str:
    """Tab for ``.tsv``; else the one of ``, ; tab |`` that the header has most of, outside quotes."""
    with open_file(file) as stream:
        head = stream.peek(4096)
    if not head.strip():
        raise DataError(f"{file} is empty\n    → Give a CSV file whose first line holds the column names.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _utf16(file)
    if re.search(r"\.(tsv|tab)(\.\w+)?$", storage.name(file)):
        return "\t"
    first = next(line for line in head.decode("utf-8", "replace").splitlines() if line.strip())
    bare = re.sub(r'"[^"]*"', "", first)
    return max(",;\t|", key=bare.count)


def _header(file: str, reader: Any) -> list[str]:
    """The column names; unnamed ones, as ``pandas`` writes its index, are called after their place."""
    try:
        names = next(row for row in reader if row)
    except (csv.Error, StopIteration) as error:
        raise DataError(
            f"{file}: the header is not valid CSV: {error}\n    → Put the column names in the first line."
        ) from error
    header = [name.strip() or f"column_{index}" for index, name in enumerate(names, 1)]
    _check_names(file, header)
    if any(_SURROGATES.search(name) for name in header):
        raise DataError(f"{file}: the header is not valid UTF-8\n    → Save the file as UTF-8.")
    return header


def _check_names(file: str, names: list[str]) -> None:
    """Raises :class:`DataError` where two columns have one name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{file}: two columns are called {twice!r}\n    → Give each column its own name.")


def _csv_chunk(file: str, header: list[str], lines: list[int], cells: list[list[str]], bad: list[BadRow]) -> Chunk:
    columns: list[Any] = list(zip(*cells, strict=True)) or [()] * len(header)
    try:
        arrays = [pa.array(column, pa.string()) for column in columns]
    except UnicodeEncodeError:  # bytes that are not UTF-8, kept as lone surrogates
        good = []
        for line, row in zip(lines, cells, strict=True):
            spoilt = next((name for name, cell in zip(header, row, strict=True) if _SURROGATES.search(cell)), None)
            if spoilt is None:
                good.append((line, row))
            else:
                reason = f"column {spoilt!r} is not valid UTF-8 (save the file as UTF-8)"
                bad.append(BadRow(line, reason, _raw(" ".join(row))))
        return _csv_chunk(file, header, [line for line, _ in good], [row for _, row in good], bad)
    arrays = [pc.if_else(pc.equal(a, ""), pa.scalar(None, pa.string()), a) for a in arrays]
    return Chunk(file, np.asarray(lines, np.int64), pa.table(arrays, names=header), bad)


def _raw(text: str) -> str:
    """A row for people to read, where bytes that are not UTF-8 were kept as lone surrogates: then as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1") if _SURROGATES.search(text) else text


def _json_chunk(file: str, numbers: list[int], rows: list[dict[str, Any]], names: dict[str, None], bad: list[BadRow]) -> Chunk:
    try:
        return Chunk(file, np.asarray(numbers, np.int64), tables.from_rows(rows, names), bad)
    except UnicodeEncodeError:  # an escape such as \ud83d, half of a character that lies beyond 16 bits
        good = []
        for number, row in zip(numbers, rows, strict=True):
            spoilt = next((name for name, value in row.items() if _is_spoilt(name) or _is_spoilt(value)), None)
            if spoilt is None:
                good.append((number, row))
            else:
                bad.append(BadRow(number, f"column {spoilt!r} holds half a character, a lone surrogate", json.dumps(row)))
        return _json_chunk(file, [number for number, _ in good], [row for _, row in good], names, bad)


def _is_spoilt(value: Any) -> bool:
    """Whether a text, or one inside a list or object, cannot be written as UTF-8."""
    return _HALVES.search(json.dumps(value, ensure_ascii=False)) is not None


def json_items(file: str, stream: io.BufferedReader) -> Iterator[tuple[int, Any]]:
    """The items of a JSON array or the values of JSON Lines, with their numbers; a line that is none is a :class:`BadRow`."""
    start = stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _utf16(file)
    return _array_items(file, stream) if start.startswith(b"[") else _lines(stream)


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not blank, or a :class:`BadRow`."""
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield number, BadRow(number, "not valid UTF-8 (save the file as UTF-8)", line.decode("latin-1").strip())
        except ValueError as error:
            yield number, BadRow(number, f"not valid JSON: {error}", line.decode("utf-8").strip())


def _array_items(file: str, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """The items of one JSON array, parsed as they are read: no more than one item and a buffer are in memory."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    decoder = json.JSONDecoder()
    separators = re.compile(r"[\s,]*")
    number, at_end = 0, False
    try:
        buffer = text.read(_READ).lstrip()
        start = 1
        while True:
            start = separators.match(buffer, start).end()  # type: ignore[union-attr]  # it also matches nothing
            if buffer.startswith("]", start):
                return
            item, end = None, -1
            with contextlib.suppress(json.JSONDecodeError):
                item, end = decoder.raw_decode(buffer, start)
            if 0 <= end < len(buffer):  # a number at the buffer's end may go on
                number, start = number + 1, end
                yield number, item
                continue
            if at_end:
                what = f"item {number + 1} is not valid JSON" if end < 0 else f"the array is not closed after item {number + 1}"
                raise DataError(f"{file}: {what}\n    → Mend it, or write one object per line.")
            more = text.read(max(_READ, len(buffer)))
            buffer, start, at_end = buffer[start:] + more, 0, not more
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: item {number + 1} or a later one is not valid UTF-8\n    → Save the file as UTF-8."
        ) from error


def _numbered(file: str, batches: Any, schema: pa.Schema) -> Iterator[Chunk]:
    """Record batches, of :data:`ROWS` rows at most, as chunks with row numbers."""
    _check_names(file, schema.names)
    start = 1
    for batch in batches:
        for offset in range(0, batch.num_rows, ROWS):
            part = batch.slice(offset, ROWS)
            table = tables.plain(pa.Table.from_batches([part]).replace_schema_metadata(schema.metadata))
            yield Chunk(file, np.arange(start, start + part.num_rows), table)
            start += part.num_rows


def _utf16(file: str) -> DataError:
    return DataError(f"{file} is UTF-16 text\n    → Save it as UTF-8.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
