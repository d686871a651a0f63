"""Two models' predictions, brought into one order by the ids of their examples."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.errors import DataError
from tunesmith.evaluation.predictions import ID
from tunesmith.evaluation.sides import Side


def aligned(a: Side, b: Side) -> tuple[pa.Table, pa.Table]:
    """The records of both, in A's order.

    Raises :class:`DataError` where the two have other examples, or another right answer to one of them.
    """
    mine, theirs = _ids(a), _ids(b)
    place = pc.index_in(mine, value_set=theirs)
    shared = len(mine) - place.null_count
    if shared < len(mine) or shared < len(theirs):
        raise DataError(
            f"{a.name} and {b.name} were judged on different examples, and cannot be compared:\n"
            f"  A  {_about(a)}\n  B  {_about(b)}\n  {shared:,} of the examples are in both\n"
            "    → Judge both on the same data: `tunesmith evaluate RUN --data FILE`, and compare those folders"
        )
    ordered = b.records.take(place)
    if "reference" in a.records.column_names and "reference" in ordered.column_names:
        _same_references(a, b, a.records, ordered)
    return a.records, ordered


def _ids(side: Side) -> pa.Array:
    ids = side.records[ID].combine_chunks().cast(pa.string())
    if pc.count_distinct(ids).as_py() < len(ids):
        twice = next(one["values"] for one in pc.value_counts(ids).to_pylist() if one["counts"] > 1)
        raise DataError(f"{side.name}: the id {twice!r} stands twice\n    → Give every example an id of its own")
    return ids


def _about(side: Side) -> str:
    n = f"{len(side.records):,} examples"
    if side.evaluation is None:
        return n
    return f"{n} of {side.evaluation.source or f'the {side.evaluation.split} split'}, hash {side.evaluation.data_hash}"


def _same_references(a: Side, b: Side, mine: pa.Table, theirs: pa.Table) -> None:
    other = different(mine["reference"], theirs["reference"])
    if other.any():
        first = mine[ID][int(np.flatnonzero(other)[0])].as_py()
        raise DataError(
            f"{a.name} and {b.name} were judged by other right answers: {int(other.sum()):,} of {len(other):,} differ, "
            f"first that of {first}\n    → Judge both again on the same labels"
        )


def different(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Where two columns differ ``[n]``, whatever they hold; nothing equals nothing."""
    if pa.types.is_string(one.type) and pa.types.is_string(other.type):
        same = pc.fill_null(pc.equal(one, other), False).to_numpy(zero_copy_only=False)
        both_null = pc.and_(pc.is_null(one), pc.is_null(other)).to_numpy(zero_copy_only=False)
        return np.asarray(~(same.astype(bool) | both_null.astype(bool)))
    return np.fromiter((x != y for x, y in zip(one.to_pylist(), other.to_pylist(), strict=True)), dtype=bool, count=len(one))
