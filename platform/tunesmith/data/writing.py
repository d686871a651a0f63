"""The rows of one split as they are kept: encoded in this process or over the cluster, in two files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tunesmith.data import rows, split, tables
from tunesmith.data.encode import Encoder, Engine, batch_size, encode_here
from tunesmith.data.parts import Part, problem_of
from tunesmith.data.prepared import FEATURES, ROWS
from tunesmith.data.problems import Problems

EngineName = Literal["auto", "local", "ray"]

RAY_ROWS = 200_000
"""Rows from which ``data.engine: auto`` takes Ray Data, on a cluster of several nodes."""


def write_split(part: Part, encoder: Encoder, engine: Engine, folder: Path, problems: Problems, progress: Any) -> np.ndarray:
    """Encode a split into its two files; returns the indices of the rows that could be encoded."""
    folder.mkdir()
    waiting: list[tuple[np.ndarray, pa.Table]] = []

    def batches() -> Iterator[pa.Table]:
        for indices, table in part.tables(batch_size(encoder.task)):
            waiting.append((indices, table))
            yield table

    ids = _ids(part)
    kept = []
    with tables.TableWriter(folder / ROWS) as row_file, tables.TableWriter(folder / FEATURES) as feature_file:
        done = 0
        for encoded in engine(encoder, batches()):
            indices, table = waiting.pop(0)
            for index, reason in encoded.failures:
                example = rows.examples(table.slice(index, 1), encoder.task.columns)[0]
                problems.add(problem_of(part, table, index, reason), example)
            if encoded.features is not None:
                named = table.append_column(rows.ID, ids(indices)).drop_columns([rows.HASH])
                row_file.write(named.filter(encoded.kept) if encoded.failures else named)
                feature_file.write(encoded.features)
            kept.append(indices[encoded.kept])
            done += len(indices)
            progress(done)
    return np.concatenate(kept)


def _ids(part: Part) -> Any:
    """A function from row indices to ids: the content's hash, with ``-2``, ``-3`` … for further rows of the same content."""
    hashes = part.data.hashes
    ordinals = np.zeros(part.data.count, dtype=np.int32)
    ordinals[part.rows] = split.rank_within(hashes[part.rows])

    def ids(indices: np.ndarray) -> pa.Array:
        pairs = zip(hashes[indices].tolist(), ordinals[indices].tolist(), strict=True)
        return pa.array(
            [f"{value:016x}" if ordinal == 0 else f"{value:016x}-{ordinal + 1}" for value, ordinal in pairs], pa.string()
        )

    return ids


def engine_for(name: EngineName, total: int) -> Engine:
    """The function that encodes: in this process, or over the cluster."""
    if name == "local" or (name == "auto" and not (total >= RAY_ROWS and _several_nodes())):
        return encode_here
    from tunesmith.data.engine_ray import encode_on_cluster

    return encode_on_cluster


def _several_nodes() -> bool:
    """Whether this process has joined a Ray cluster of several nodes."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and sum(bool(node["Alive"]) for node in ray.nodes()) > 1
