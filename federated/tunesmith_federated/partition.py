"""One data set dealt out to simulated sites: every row to exactly one of them, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.recipe.federation import PartitionSection
from tunesmith_federated.picture import picture

__all__ = ["DRAWS", "Rows", "count", "partition", "picture"]

Rows = npt.NDArray[np.int64]

DRAWS = 100
"""How often a random partition is drawn until each site has its least rows."""
_SHOWN = 5


def partition(
    section: PartitionSection,
    sites: int,
    labels: npt.NDArray[Any] | None,
    column: Sequence[Any] | None,
    n: int,
) -> dict[str, Rows]:
    """Site → its rows, sorted.

    Args:
        section: how they are dealt out.
        sites: how many sites there are; with ``by: column`` as many as the column has values.
        labels: the class of each row ``[n]``; None where rows have not one class each.
        column: the values of ``section.column`` ``[n]``; None where the data has no such column.
        n: rows in all.

    Raises:
        DataError: fewer rows than sites, no classes or column where they are needed, or sites that stay too small.
    """
    if section.by == "column":
        return _by_column(section, column)
    if sites > n:
        raise DataError(
            f"federation.sites: {sites:,} sites cannot share {n:,} rows\n    → Lower federation.sites, or give more data"
        )
    if section.by in ("dirichlet", "shards") and labels is None:
        raise DataError(
            f"federation.partition.by: {section.by} deals out by class, and rows of this task have not one class each\n"
            "    → Write iid, quantity or column"
        )
    rng = np.random.default_rng(section.seed)
    groups = _drawn(section, sites, n, _dealer(section, sites, labels, n, rng))
    width = max(2, len(str(sites - 1)))
    return {f"site-{k:0{width}d}": np.sort(rows).astype(np.int64) for k, rows in enumerate(groups)}


def count(parts: Mapping[str, Rows], labels: Sequence[Any] | npt.NDArray[Any] | None) -> dict[str, dict[str, int]]:
    """Site → class → rows: who has what, for the picture; without classes all rows are of the class ``""``.

    >>> count({"a": np.array([0, 2]), "b": np.array([1])}, ["x", "y", "x"])
    {'a': {'x': 2}, 'b': {'y': 1}}
    """
    if labels is None:
        return {site: {"": len(rows)} for site, rows in parts.items()}
    known = np.asarray([str(label) for label in labels])
    found = {site: np.unique(known[rows], return_counts=True) for site, rows in parts.items()}
    return {site: {str(name): int(k) for name, k in zip(*pair, strict=True)} for site, pair in found.items()}


def _dealer(
    section: PartitionSection, sites: int, labels: npt.NDArray[Any] | None, n: int, rng: np.random.Generator
) -> Callable[[], list[Rows]]:
    """A function that deals out all rows once."""
    if section.by == "iid":
        return lambda: np.array_split(rng.permutation(n), sites)
    if section.by == "quantity":
        return lambda: _cut(rng.permutation(n), rng.dirichlet(np.full(sites, section.alpha)))
    assert labels is not None
    _, codes = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    if section.by == "dirichlet":
        return lambda: _dirichlet(codes, sites, section.alpha, rng)
    return lambda: _shards(codes, sites, section.shards_per_site, rng)


def _dirichlet(codes: Rows, sites: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """Each class is shared out over the sites by its own draw of Dir(α)."""
    held: list[list[Rows]] = [[] for _ in range(sites)]
    for code in range(int(codes.max(initial=-1)) + 1):
        rows = rng.permutation(np.flatnonzero(codes == code))
        for site, part in enumerate(_cut(rows, rng.dirichlet(np.full(sites, alpha)))):
            held[site].append(part)
    return [np.concatenate(parts) for parts in held]


def _shards(codes: Rows, sites: int, per_site: int, rng: np.random.Generator) -> list[Rows]:
    """Rows sorted by class, cut into blocks of one size, so many blocks to each site."""
    mixed = rng.permutation(len(codes))
    blocks = np.array_split(mixed[np.argsort(codes[mixed], kind="stable")], sites * per_site)
    order = rng.permutation(len(blocks)).reshape(sites, per_site)
    return [np.concatenate([blocks[k] for k in mine]) for mine in order]


def _cut(rows: Rows, shares: npt.NDArray[np.float64]) -> list[Rows]:
    """Rows in parts of these shares, each within a row of its share."""
    ends = np.round(np.cumsum(shares) / shares.sum() * len(rows)).astype(np.int64)
    return np.split(rows, ends[:-1])


def _drawn(section: PartitionSection, sites: int, n: int, deal: Callable[[], list[Rows]]) -> list[Rows]:
    """Dealt out until each site has enough. Raises :class:`DataError` where that does not happen."""
    least, random = section.min_examples, section.by in ("dirichlet", "quantity")
    smallest = 0
    for _ in range(DRAWS if random and least * sites <= n else 1):
        groups = deal()
        smallest = max(smallest, min(len(rows) for rows in groups))
        if smallest >= least:
            return groups
    tried = f"in {DRAWS} draws the smallest site had at most {smallest}" if random else f"the smallest site has {smallest}"
    if least * sites > n:
        tried = f"there are {n:,}"
    fix = "Raise federation.partition.alpha, lower" if random and least * sites <= n else "Lower"
    raise DataError(
        f"federation.partition.min_examples: each of {sites:,} sites should have {least:,} rows, and {tried}\n"
        f"    → {fix} federation.sites or federation.partition.min_examples"
    )


def _by_column(section: PartitionSection, column: Sequence[Any] | None) -> dict[str, Rows]:
    """A site for each value, in the order of their names."""
    if column is None:
        raise DataError(
            f"federation.partition.column: the data has no column {section.column!r}\n"
            "    → Name the column that says which site a row is of"
        )
    empty = [row for row, value in enumerate(column) if value is None or value == "" or value != value]  # NaN
    if empty:
        shown = ", ".join(map(str, empty[:_SHOWN]))
        raise DataError(
            f"federation.partition.column: {len(empty):,} rows have no value in {section.column!r}, such as rows {shown}\n"
            "    → Fill them in, or remove these rows: nobody knows whose they are"
        )
    names, codes = np.unique(np.asarray([str(value) for value in column]), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1])
    found = {str(name): rows.astype(np.int64) for name, rows in zip(names, parts, strict=True)}
    small = [f"{name} has {len(rows)}" for name, rows in found.items() if len(rows) < section.min_examples]
    if small:
        more = f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
        raise DataError(
            f"federation.partition.min_examples: {len(small)} of {len(found)} sites have fewer than "
            f"{section.min_examples} rows: {', '.join(small[:_SHOWN])}{more}\n"
            "    → Lower it, or join small sites under one value"
        )
    return found
