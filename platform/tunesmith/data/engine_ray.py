"""Encodes rows with Ray Data over the cluster that this process has joined; what comes out is what one process would make.

Rows travel through Ray's object store, so that nodes need no common disk; files that rows name (images) must be reachable from
every node.
"""

from __future__ import annotations

import itertools
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa

from tunesmith.data.encode import Encoded, Encoder

WAVE = 256
"""Tables of rows handed to Ray Data at a time: bounds what lies in the object store, whatever the data's size."""

BLOCK = 4
"""Tables encoded by one Ray task: a task costs a few milliseconds, a table a few tens."""


def encode_on_cluster(encoder: Encoder, batches: Iterable[pa.Table]) -> Iterator[Encoded]:
    """The engine of a cluster. Starts Ray on this machine where none was joined."""
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    reference = ray.put(encoder)
    tables = iter(batches)
    while wave := list(itertools.islice(tables, WAVE)):
        yield from _encode_wave(reference, wave)


def _encode_wave(encoder: Any, wave: list[pa.Table]) -> Iterator[Encoded]:
    """One execution of Ray Data, whose results come back in order while later ones are still being made."""
    import ray

    with warnings.catch_warnings():  # copying reads Ray's own deprecated settings
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [pa.table({"rows": pa.array([_pack(table) for table in part], pa.binary())}) for part in _blocks(wave)]
    with ray.data.DataContext.current(context):
        done = ray.data.from_arrow(rows).map_batches(
            partial(_encode_block, encoder=encoder), batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
    for block in done.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in cast("pa.Table", block).to_pylist():
            features = _unpack(row["features"]) if row["features"] is not None else None
            kept = np.frombuffer(row["kept"], dtype=np.bool_)
            yield Encoded(kept, features, [(index, reason) for index, reason in json.loads(row["failures"])])


def _encode_block(block: pa.Table, encoder: Any) -> pa.Table:
    """Runs on a worker: each row of the block is a packed table of rows."""
    run = _fetched(encoder)
    done = [run(_unpack(value.as_buffer())) for value in block["rows"]]
    return pa.table(
        {
            "features": pa.array([_pack(one.features) if one.features is not None else None for one in done], pa.binary()),
            "kept": pa.array([one.kept.tobytes() for one in done], pa.binary()),
            "failures": [json.dumps(one.failures) for one in done],
        }
    )


_here: dict[str, Encoder] = {}
"""The encoder that this worker process uses: fetching it for each block would load the tokenizer again."""


def _fetched(reference: Any) -> Encoder:
    import ray

    name = reference.hex()
    if name not in _here:
        _here.clear()
        _here[name] = ray.get(reference)
    return _here[name]


def _blocks(wave: list[pa.Table]) -> Iterator[list[pa.Table]]:
    for start in range(0, len(wave), BLOCK):
        yield wave[start : start + BLOCK]


def _pack(table: pa.Table) -> bytes:
    """A table with its metadata as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _unpack(data: Any) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
