"""The rows of one split, before they are encoded: counted, cut to a size, and described for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tunesmith.data import rows, split
from tunesmith.data.care import groups
from tunesmith.data.domains import Domains
from tunesmith.data.ingest import Ingested
from tunesmith.data.problems import Problem
from tunesmith.errors import DataError
from tunesmith.tasks.base import Stats, Task

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

PASS = 4096
"""Rows at a time where they are only looked at."""


@dataclass
class Part:
    """The rows of one split: which ones of an ingested file."""

    name: str
    data: Ingested
    rows: np.ndarray
    """Sorted indices, int64."""

    @property
    def domains(self) -> Domains | None:
        """The named data set of each row."""
        return self.data.domains.take(self.rows) if self.data.domains is not None else None

    def of_domains(self) -> dict[str, Part]:
        """The rows of each named data set that has any here."""
        found = self.domains.rows() if self.domains is not None else {}
        return {name: Part(self.name, self.data, self.rows[chosen]) for name, chosen in found.items()}

    def tables(self, size: int) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """The rows in order, ``size`` at a time, each with their indices."""
        chosen = np.zeros(self.data.count, dtype=bool)
        chosen[self.rows] = True
        start = done = waiting = 0
        parts: list[pa.Table] = []
        for table in self.data.tables(size):
            mask = chosen[start : start + len(table)]
            start += len(table)
            if not mask.any():
                continue
            parts.append(table if mask.all() else table.filter(mask))
            waiting += len(parts[-1])
            if waiting >= size:
                whole = pa.concat_tables(parts)
                yield self.rows[done : done + size], whole.slice(0, size)
                parts, waiting, done = [whole.slice(size)], waiting - size, done + size
        if waiting:
            yield self.rows[done:], pa.concat_tables(parts)


def collect(task: Task, part: Part) -> Stats:
    """The statistics of all rows of a split, shard by shard."""
    stats: list[Stats] = []
    for _, table in part.tables(PASS):
        stats.append(task.collect(rows.examples(table, task.columns)))
        if len(stats) == 64:
            stats = [task.merge(stats)]
    return task.merge(stats)


def limited(part: Part, recipe: Recipe) -> Part:
    """The training and validation splits cut to ``data.max_train_samples`` and ``data.max_validation_samples``, drawn so that
    classes and domains keep their shares, or the first to ``data.few_shot.per_class`` rows of each class; others as they are.
    """
    if part.name == "train" and recipe.data.few_shot.per_class is not None:
        return _few(part, recipe.data.few_shot.per_class, recipe.data.few_shot.seed)
    limits = {"train": recipe.data.max_train_samples, "validation": recipe.data.max_validation_samples}
    size = limits.get(part.name)
    if size is None or size >= len(part.rows):
        return part
    strata = part.data.strata[part.rows] if part.data.strata is not None else None
    if part.domains is not None:
        strata = part.domains.codes if strata is None else groups.pair_codes(strata, part.domains.codes)
    return Part(part.name, part.data, part.rows[split.subset(len(part.rows), size, strata, recipe.data.split.seed)])


def _few(part: Part, per_class: int, seed: int) -> Part:
    """So many rows of each class, of which domains keep their shares.

    Raises :class:`DataError` where there are no classes, or too few rows of one.
    """
    if part.data.strata is None:
        raise DataError("data.few_shot: the rows have no class to draw by\n    → Use data.max_train_samples.")
    strata = part.data.strata[part.rows]
    counts = np.bincount(strata, minlength=len(part.data.classes))
    short = [f"{part.data.classes[c]!r} has {counts[c]}" for c in np.flatnonzero((counts > 0) & (counts < per_class))]
    if short:
        more = f", and {len(short) - 5} more" if len(short) > 5 else ""
        raise DataError(
            f"data.few_shot.per_class is {per_class}, but the training split has fewer rows of some classes: "
            f"{', '.join(short[:5])}{more}\n    → Lower data.few_shot.per_class to {int(counts[counts > 0].min())}."
        )
    if part.domains is None:
        return Part(part.name, part.data, part.rows[split.per_class(strata, per_class, seed)])
    of_class = (np.flatnonzero(strata == code) for code in np.unique(strata))
    drawn = [some[split.subset(len(some), per_class, part.domains.codes[some], seed)] for some in of_class]
    return Part(part.name, part.data, part.rows[np.sort(np.concatenate(drawn))])


def problem_of(part: Part, table: pa.Table, index: int, reason: str) -> Problem:
    """The problem of a row of ``table``, named by its file and row."""
    file = part.data.files[table[rows.FILE][index].as_py()]
    return Problem(part.name, file, table[rows.ROW][index].as_py(), reason)


def domains_of(part: Part) -> dict[str, Any]:
    """Rows and classes of each named data set, in the order of their codes; nothing where data sets have no names."""
    if part.domains is None:
        return {}
    of_domains, counts = part.of_domains(), part.domains.counts()
    labels = {name: labels_of(one) for name, one in of_domains.items()}
    return {"domains": {name: {"rows": count, "labels": labels.get(name)} for name, count in counts.items()}}


def rows_hash(part: Part) -> str:
    """BLAKE2b-128 over the contents of the split's rows, in order."""
    return hashlib.blake2b(part.data.hashes[part.rows].astype("<u8").tobytes(), digest_size=16).hexdigest()


def labels_of(part: Part) -> dict[str, int] | None:
    """Rows of each class, or None where the task has no classes."""
    if part.data.strata is None:
        return None
    counts = np.bincount(part.data.strata[part.rows], minlength=len(part.data.classes))
    return {name: int(count) for name, count in sorted(zip(part.data.classes, counts, strict=True)) if count}
