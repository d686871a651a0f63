"""The examples by the values of a column: where a model is good for some and bad for others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.errors import DataError, nearest

MOST_VALUES = 20
"""Values shown of a column, the commonest; numbers with more different values are cut into four parts of equal size."""

MISSING = "(missing)"

EXACT = 17
"""Digits that tell any two floating-point numbers of 64 bits apart."""


def slice_columns(rows: pa.Table, names: Sequence[str], key: str = "evaluation.slices") -> dict[str, pa.Array]:
    """The columns to slice by, as the recipe's ``key`` names them.

    Raises :class:`DataError` for one that the data lacks, with the nearest that it has.
    """
    found = {}
    for name in names:
        if name not in rows.column_names:
            near = nearest(name, rows.column_names)
            raise DataError(
                f"{key}: the data has no column {name!r}.\n    → "
                + (f"Did you mean {near!r}? " if near else "")
                + f"It has {', '.join(rows.column_names)}."
            )
        column = rows[name]
        found[name] = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return found


def slices_of(column: pa.Array) -> tuple[dict[str, np.ndarray], int]:
    """The indices of each slice's examples by its name, commonest first, and how many further values are left out.

    >>> {name: rows.tolist() for name, rows in slices_of(pa.array(["a", "b", "a", None]))[0].items()}
    {'a': [0, 2], '(missing)': [3], 'b': [1]}
    """
    names, inverse, counts = np.unique(values_of(column), return_inverse=True, return_counts=True)
    order = sorted(range(len(names)), key=lambda k: (-int(counts[k]), str(names[k])))
    kept = order[:MOST_VALUES]
    return {str(names[k]): np.flatnonzero(inverse == k) for k in kept}, len(order) - len(kept)


def values_of(column: pa.Array) -> np.ndarray:
    """The name of the slice that each example is in, text ``[n]``: its value, or the quarter that its number is in."""
    if _is_number(column.type) and pc.count_distinct(column).as_py() > MOST_VALUES:
        column = _quarters(column)
    return np.asarray([MISSING if value is None else str(value) for value in column.to_pylist()], dtype=object).astype(str)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _quarters(column: pa.Array) -> pa.Array:
    """Numbers as the range of their quarter: ``1 to 4.5``; integers beyond 2^53 as the nearest floating-point number."""
    values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, [0, 0.25, 0.5, 0.75, 1]))
    if len(edges) < 2:
        return pa.array([None if np.isnan(value) else f"{value:g}" for value in values])
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low} to {high}" for low, high in itertools.pairwise(_told_apart(edges))]
    return pa.array([names[k] if np.isfinite(value) else None for k, value in zip(place, values, strict=True)])


def _told_apart(edges: np.ndarray) -> list[str]:
    """Different numbers as different texts: of four digits where these do, else of as many as it takes.

    >>> _told_apart(np.array([0.5, 20240101.0])), _told_apart(np.array([20240101.0, 20240401.0]))
    (['0.5', '2.024e+07'], ['20240101', '20240401'])
    """
    whole = len(f"{np.abs(edges).max():.0f}")
    for digits in (4, *range(min(max(whole, 5), EXACT), EXACT)):
        names = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(names)) == len(names):
            return names
    return [f"{edge:.{EXACT}g}" for edge in edges]
