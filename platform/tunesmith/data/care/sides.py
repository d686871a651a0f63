"""Given splits against ``data.split.group`` and ``data.split.time``: no group on both sides, no row to judge that is not
later than ``train``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data import tables
from tunesmith.data.ingest import Ingested
from tunesmith.data.split_columns import column_of, is_number, kept_as, method, moments_of, no_times, place
from tunesmith.errors import DataError
from tunesmith.recipe.data import DataSection

log = logging.getLogger(__name__)

SHOWN = 3
"""Groups and rows that are named."""

SIDES = ("group", "time")
"""Ways to split that put whole groups, or everything up to a time, on the side of ``train``."""

REMEDY = {
    "group": "where a group may be on both sides, remove data.split.group",
    "time": "where the order does not matter, remove data.split.time",
}


@dataclass(frozen=True)
class Astray:
    """The rows of a given split that stand on the side of ``train``."""

    rows: np.ndarray
    """Their sorted indices."""
    says: str = ""
    """What makes them so, for people."""


def part_sides(data: DataSection, given: Mapping[str, Ingested], kept: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Refuse, take out or count the rows of given splits on the side of ``train``, as ``data.leakage`` says; an entry for each.

    ``kept`` holds the rows of each split that stay. Raises :class:`DataError`.
    """
    train = given["train"]
    found: dict[str, dict[str, Any]] = {}
    by = method(data, train)
    column = {"group": data.split.group, "time": data.split.time}.get(by)
    if column is None:
        return found
    theirs = column_of(train, column, by).take(pa.array(kept["train"]))
    for name in list(given)[1:]:
        judged, total = given[name], len(kept[name])
        values, untold = _values(judged, kept[name], column, by)
        one = Astray(kept[name][:0])
        if values is not None and untold < total and by == "group":
            one = _of_groups(theirs, values, kept[name], column)
        elif values is not None and untold < total:
            one = _not_later(train, kept["train"], theirs, judged, kept[name], values, column)
        found[name] = {"by": by, "rows": len(one.rows), "untold": untold, "left_out": 0, "says": one.says}
        if not len(one.rows):
            continue
        what = f"data.{name}: {len(one.rows):,} of {total:,} rows {one.says}"
        if data.leakage in ("auto", "error"):
            raise _refused(what, name, by, judged, one.rows)
        if data.leakage == "report":
            log.warning("%s", what)
            continue
        kept[name] = np.setdiff1d(kept[name], one.rows)
        found[name]["left_out"] = len(one.rows)
        if not len(kept[name]):
            raise DataError(
                f"{what}: without them none is left\n    → Give other rows, or leave data.{name} out to have it cut."
            )
        log.warning("%s: they are left out", what)
    return found


def _values(judged: Ingested, chosen: np.ndarray, column: str, by: str) -> tuple[pa.ChunkedArray | None, int]:
    """The groups or times of the rows ``chosen``, None where the split has no such column; and how many rows have none."""
    stored = kept_as(judged, column)
    values = judged.column(stored).take(pa.array(chosen)) if stored is not None else None
    untold = len(chosen) if values is None else values.null_count
    if untold:
        what = "their group stands in data.train" if by == "group" else "they are later than data.train"
        log.warning("%d rows of data.%s have no %r: whether %s cannot be told", untold, judged.name, column, what)
    return values, untold


def _of_groups(theirs: pa.ChunkedArray, mine: pa.ChunkedArray, chosen: np.ndarray, column: str) -> Astray:
    """The rows ``chosen`` whose group, of ``mine``, is among those of ``train``."""
    known = {tables.as_text(value) for value in theirs.unique().to_pylist()} - {None}
    groups = [value for value in mine.unique().to_pylist() if value is not None]
    shared = [value for value in groups if tables.as_text(value) in known]
    wrong = np.asarray(pc.is_in(mine, value_set=pa.array(shared, mine.type)))
    named = ", ".join(map(repr, shared[:SHOWN])) + (" …" if len(shared) > SHOWN else "")
    return Astray(chosen[wrong], f"have a {column!r} that stands in data.train too ({len(shared)} of {len(groups)}: {named})")


def _not_later(
    train: Ingested,
    kept: np.ndarray,
    theirs: pa.ChunkedArray,
    judged: Ingested,
    chosen: np.ndarray,
    mine: pa.ChunkedArray,
    column: str,
) -> Astray:
    """The rows ``chosen`` whose time, of ``mine``, is not later than the last one of ``train``."""
    if is_number(mine) != is_number(theirs):
        raise DataError(
            f"data.split.time: {column!r} holds numbers in data.{judged.name} and dates in data.train, or the other way round"
            "\n    → Write both alike."
        )
    before, learned = _moments(train, kept, column, theirs)
    moments, has_time = _moments(judged, chosen, column, mine)
    if not learned.any():
        return Astray(chosen[:0])
    last = int(np.flatnonzero(learned)[before[learned].argmax()])
    wrong = has_time & (moments <= before[last])
    where = f"{theirs[last].as_py()}, {place(train, int(kept[last]))}"
    return Astray(chosen[wrong], f"are not later by {column!r} than the last of data.train ({where})")


def _moments(data: Ingested, chosen: np.ndarray, column: str, values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Times as numbers, and which rows have one. Raises :class:`DataError` for values that are no times."""
    numbers, bad = moments_of(values)
    empty = np.asarray(values.is_null())
    if not empty[bad].all():
        wrong = bad[~empty[bad]]
        raise no_times(data, chosen[wrong], values.take(pa.array(wrong)), column)
    return numbers, ~empty


def _refused(what: str, name: str, by: str, judged: Ingested, wrong: np.ndarray) -> DataError:
    shown = "; ".join(place(judged, int(row)) for row in wrong[:SHOWN]) + (" …" if len(wrong) > SHOWN else "")
    return DataError(
        f"{what}: {shown}\n    → Take them out of data.{name} or data.train, or set data.leakage: move (they leave the "
        f"evaluation) or report (they stay and the report says so); {REMEDY[by]}."
    )
