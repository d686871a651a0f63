"""Features in Arrow files, and back: written batch by batch, read by memory map without copying.

One row is one example. Numbers are plain columns; arrays of one dimension are lists; arrays of more are bytes with their shape
beside them. ``length`` and ``count`` of :class:`Features` are the columns :data:`LENGTH` and :data:`COUNT`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.tasks.base import Features

LENGTH = "__length"
COUNT = "__count"
_SHAPE = ":shape"
_META = b"tunesmith"

Value = np.ndarray | int | float


def to_table(features: Sequence[Features]) -> pa.Table:
    """Features of any number of examples (at least one), which must all have the same names and kinds of values."""
    names = list(features[0].values)
    for one in features:
        if list(one.values) != names:
            raise ValueError(f"examples differ in their features: {names} and {list(one.values)}")
    columns: dict[str, pa.Array] = {}
    dtypes: dict[str, str] = {}
    for name in names:
        first = features[0].values[name]
        if isinstance(first, np.ndarray) and first.ndim > 0:
            arrays = [np.asarray(one.values[name]) for one in features]
            dtypes[name] = first.dtype.str
            if any(array.ndim != first.ndim or array.dtype != first.dtype for array in arrays):
                raise ValueError(f"the feature {name!r} differs in type or number of dimensions between examples")
            columns[name] = _lists(arrays) if first.ndim == 1 else _blobs(arrays)
            if first.ndim > 1:
                columns[name + _SHAPE] = _lists([np.asarray(array.shape, np.int32) for array in arrays])
        else:
            values = np.asarray([one.values[name] for one in features])
            columns[name] = pa.array(values.astype(np.float64 if values.dtype.kind == "f" else np.int64))
    columns[LENGTH] = pa.array([one.length for one in features], pa.int32())
    columns[COUNT] = pa.array([one.count for one in features], pa.int32())
    return pa.table(columns).replace_schema_metadata({_META: json.dumps(dtypes)})


class FeatureFile:
    """The features of one split, memory-mapped. Arrays are read-only views of the file: copy before writing into them."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = self._reader.schema.metadata or {}
        self._dtypes: dict[str, np.dtype[Any]] = {
            name: np.dtype(text) for name, text in json.loads(metadata.get(_META, b"{}")).items()
        }
        self._names = [n for n in self._reader.schema.names if n not in (LENGTH, COUNT) and not n.endswith(_SHAPE)]
        batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        self.lengths = _joined([batch.column(LENGTH) for batch in batches])
        self.counts = _joined([batch.column(COUNT) for batch in batches])
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._getters: list[dict[str, Callable[[int], Value]] | None] = [None] * len(batches)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def get(self, indices: Sequence[int] | np.ndarray) -> list[Features]:
        """The features of these examples, in this order. Raises IndexError."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"examples are 0 to {len(self) - 1}, not {wanted.min()} to {wanted.max()}")
        chunks = np.searchsorted(self._starts, wanted, side="right") - 1
        inside = wanted - self._starts[chunks]
        lengths, counts = self.lengths[wanted].tolist(), self.counts[wanted].tolist()
        found = []
        for chunk, row, length, count in zip(chunks.tolist(), inside.tolist(), lengths, counts, strict=True):
            getters = self._getters[chunk] or self._open(chunk)
            found.append(Features({name: getter(row) for name, getter in getters.items()}, length, count))
        return found

    def _open(self, chunk: int) -> dict[str, Callable[[int], Value]]:
        """NumPy views of a record batch, made when it is first asked for and kept: they hold no copies."""
        batch = self._reader.get_batch(chunk)
        getters = {name: _getter(batch, name, self._dtypes.get(name)) for name in self._names}
        self._getters[chunk] = getters
        return getters


def _lists(arrays: Sequence[np.ndarray]) -> pa.ListArray:
    """Arrays of one dimension as an Arrow list array; truth values as ``uint8``, which need no unpacking."""
    flat = np.concatenate(arrays)
    flat = flat.view(np.uint8) if flat.dtype == np.bool_ else flat
    return pa.ListArray.from_arrays(pa.array(_offsets([len(array) for array in arrays])), pa.array(flat))


def _blobs(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Arrays of several dimensions as their bytes in C order."""
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    offsets = _offsets([array.nbytes for array in arrays])
    return pa.Array.from_buffers(pa.binary(), len(arrays), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)])


def _offsets(sizes: Sequence[int]) -> np.ndarray:
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]:,} bytes of features in one batch are more than Arrow's 2 GiB")
    return offsets.astype(np.int32)


def _joined(columns: Sequence[pa.Array]) -> np.ndarray:
    """A number column of all batches in memory, int32 ``[n]``."""
    if not columns:
        return np.zeros(0, np.int32)
    return np.concatenate([column.to_numpy(zero_copy_only=False) for column in columns]).astype(np.int32, copy=False)


def _getter(batch: pa.RecordBatch, name: str, dtype: np.dtype[Any] | None) -> Callable[[int], Value]:
    """A function from a row of the batch to its value."""
    column = batch.column(name)
    if dtype is None:
        numbers = column.to_numpy(zero_copy_only=False)
        return lambda row: numbers[row].item()
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    if pa.types.is_list(column.type):
        flat = column.values.to_numpy(zero_copy_only=True).view(dtype)
        return lambda row: flat[offsets[row] : offsets[row + 1]]
    shapes = batch.column(name + _SHAPE)
    sizes = shapes.values.to_numpy(zero_copy_only=True).reshape(len(batch), -1)
    # an empty Arrow buffer is None: a batch whose arrays have no elements
    raw = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return lambda row: raw[offsets[row] : offsets[row + 1]].view(dtype).reshape(sizes[row])
