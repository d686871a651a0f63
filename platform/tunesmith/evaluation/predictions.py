"""``predictions.parquet``: one row for each example, in the split's order, written as it is predicted.

Where data sets have names, the column ``domain`` has them; a column of the data by that name becomes ``data.domain``.

The split is predicted block by block (length-sorted inside a block), so that few blocks' records are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith import storage
from tunesmith.data import domains
from tunesmith.data.prepared import Split
from tunesmith.tasks.base import Answer, Example, Record, State, Task

BLOCK = 4096
"""Examples of one block, which is one row group of the file."""

ID = "id"
Progress = Callable[[str, int, int], None]
"""What is done, how many examples are through, and of how many."""

Records = Iterator[tuple[np.ndarray, list[Record]]]
"""The indices of each block of a split, in order, and the record of each of its examples."""


def write_predictions(place: str, records: Records, split: Split, columns: Mapping[str, pa.Array]) -> None:
    """Write the records of a split to the file at ``place`` (a path or URI), with ``columns`` ``[n]`` beside each record."""
    writer: pq.ParquetWriter | None = None
    record_schema: pa.Schema | None = None
    with storage.writing(place) as stream:
        for block, found in records:
            table = _table(found, record_schema)
            record_schema = table.schema
            table = table.add_column(0, ID, split.ids.take(pa.array(block)))
            if split.domains is not None:
                table = table.append_column(domains.NAME, split.domains.take(block).column())
            for name, values in columns.items():
                table = table.append_column(
                    name if name not in table.column_names else f"data.{name}", values.take(pa.array(block))
                )
            if writer is None:
                writer = pq.ParquetWriter(stream, table.schema, compression="zstd")
            writer.write_table(table)
        assert writer is not None, "a split without examples is not judged"
        writer.close()


def constant_records(answer: Answer, task: Task, state: State, split: Split) -> Records:
    """The records of a model that gives every example one answer."""
    for block in block_indices(len(split)):
        yield block, [task.score(answer, example, state) for example in split.examples(block)]


def read_predictions(place: str) -> pa.Table:
    """All rows, memory-mapped where they are on this machine."""
    if storage.is_local(place):
        return pq.read_table(storage.local_path(place), memory_map=True)
    filesystem, path = storage.filesystem(place)
    return pq.read_table(path, filesystem=filesystem)


def in_blocks(split: Split) -> Iterator[Example]:
    """The split's examples, one after the other, a block in memory at a time."""
    for block in block_indices(len(split)):
        yield from split.examples(block)


def block_indices(n: int) -> Iterator[np.ndarray]:
    """The indices of ``n`` examples, a block at a time, int64."""
    for start in range(0, n, BLOCK):
        yield np.arange(start, min(start + BLOCK, n))


def _table(records: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> pa.Table:
    """The records as a table; of a column that is empty in the first block, text (or lists of text) is assumed."""
    if schema is not None:
        return pa.Table.from_pylist(list(records), schema=schema)
    table = pa.Table.from_pylist(list(records))
    return table.cast(pa.schema([pa.field(field.name, _known(field.type)) for field in table.schema]))


def _known(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_null(kind):
        return pa.string()
    return pa.list_(_known(kind.value_type)) if pa.types.is_list(kind) else kind
