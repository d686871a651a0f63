"""Files that tables name, such as the images of a CSV: what tells cheaply whether one of them changed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types

from tunesmith import storage
from tunesmith.data import columns, rows
from tunesmith.errors import DataError

if TYPE_CHECKING:
    from tunesmith.data.sources import Source
    from tunesmith.tasks.base import Task


def stamps(sources: Mapping[str, Sequence[Source]], task: Task, said: Mapping[str, str]) -> dict[str, str]:
    """BLAKE2b-128 over sizes and times of the local files that each split's tables name; nothing of a split that names none.

    ``said`` is ``data.columns``. No file is opened but the tables, which are read in constant memory. The files of a folder of
    images are its source's own, and not looked at here; those of tables at URIs are taken not to change.
    """
    media = any(column.kind in rows.MEDIA for column in task.columns.values())
    found = {}
    for split, members in sources.items() if media else ():
        digest, any_named = hashlib.blake2b(digest_size=16), False
        for place in _places(members, task, said):
            any_named = True
            digest.update(_stamp(place))
        if any_named:
            found[split] = digest.hexdigest()
    return found


def _places(sources: Sequence[Source], task: Task, said: Mapping[str, str]) -> Iterator[str]:
    """The local files that the rows name, in order, up to where a table cannot be read: whoever reads it says why."""
    for source in sources:
        if source.format == "imagefolder":
            continue
        for file in source.files:
            local = storage.is_local(file.uri)  # what a table at a URI names lies beside it, and is taken not to change
            with contextlib.suppress(DataError):
                if local and not (source.format == "parquet" and _all_inside(file.uri, task, said)):
                    yield from _named(replace(source, files=(file,)), task, said)


def _all_inside(place: str, task: Task, said: Mapping[str, str]) -> bool:
    """Whether a Parquet file says that all of its media are bytes; of its rows nothing is read, which may be gigabytes."""
    try:
        file = pq.ParquetFile(storage.local_path(place))
    except (OSError, pa.ArrowException):
        return False
    with file:
        schema, meta = file.schema_arrow, file.metadata
        numbers = (
            {meta.row_group(0).column(n).path_in_schema: n for n in range(meta.num_columns)} if meta.num_row_groups else {}
        )
        mapping = _mapping(schema.names, task, said, place)
        for name in (name for role, name in mapping.items() if task.columns[role].kind in rows.MEDIA):
            kind, number = schema.field(name).type, numbers.get(f"{name}.bytes")
            if types.is_binary(kind):
                continue
            if not types.is_struct(kind) or number is None:
                return False
            told = [meta.row_group(group).column(number).statistics for group in range(meta.num_row_groups)]
            if not all(one is not None and one.has_null_count and one.null_count == 0 for one in told):
                return False
    return True


def _mapping(there: Sequence[str], task: Task, said: Mapping[str, str], place: str) -> Mapping[str, str]:
    """Role → column. Raises :class:`DataError`."""
    return columns.match(there, task, {role: name for role, name in said.items() if name in there}, place, need_target=False)


def _named(source: Source, task: Task, said: Mapping[str, str]) -> Iterator[str]:
    """Those of one table; its first rows tell whether it holds its media itself."""
    for chunk in source.chunks():
        folder, mapping = storage.parent(chunk.file), _mapping(chunk.table.column_names, task, said, chunk.file)
        media = [chunk.table[name] for role, name in mapping.items() if task.columns[role].kind in rows.MEDIA]
        if len(chunk.table) and all(map(_holds, media)):
            return
        for path in itertools.chain.from_iterable(map(_paths, media)):
            if isinstance(path, str):
                alone = not folder or path.startswith("/") or storage.scheme(path)
                place = path if alone else f"{folder}/{path}"
                if storage.is_local(place):
                    yield place


def _holds(values: pa.ChunkedArray) -> bool:
    """Whether every row of a column of media is bytes."""
    if not types.is_struct(values.type):
        return bool(types.is_binary(values.type))
    return "bytes" in values.type.names and pc.struct_field(values, "bytes").null_count == 0


def _paths(values: pa.ChunkedArray) -> list[Any]:
    """The paths of the rows that are not bytes."""
    if not types.is_struct(values.type):
        return [] if types.is_binary(values.type) else values.to_pylist()
    if "path" not in values.type.names:
        return []
    paths: pa.ChunkedArray = pc.struct_field(values, "path")
    if "bytes" in values.type.names:
        paths = paths.filter(pc.is_null(pc.struct_field(values, "bytes")))
    return list(paths.to_pylist())


def _stamp(place: str) -> bytes:
    """Size and time of a file, or that there is none. A path is not made a ``Path`` first: that costs more than asking."""
    try:
        told = os.stat(storage.local_path(place) if place.startswith(("~", "file:")) else place)
    except (OSError, ValueError):
        return b"-\0"
    return f"{told.st_size} {told.st_mtime_ns}\0".encode()
