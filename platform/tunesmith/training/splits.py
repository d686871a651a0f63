"""Splits as the loop sees them: some examples of one, or several as one. Nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunesmith.tasks.base import Features
from tunesmith.training.batch_plan import Indices
from tunesmith.training.spec import Examples


@dataclass(frozen=True)
class Chosen:
    """Some examples of each of several splits, one split after the other, as a split of their own."""

    parts: tuple[tuple[Examples, Indices], ...]
    """Each split with the indices of its examples, in the order in which they are here."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What each example costs, ``[n]``."""
        return np.concatenate([split.lengths[rows] for split, rows in self.parts])

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """The units of loss of each, ``[n]``."""
        return np.concatenate([split.counts[rows] for split, rows in self.parts])

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def features(self, indices: Sequence[int]) -> list[Features]:
        """The features of these examples, in this order."""
        return self._each(indices, "features")

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples themselves, in this order."""
        return self._each(indices, "examples")

    def _each(self, indices: Sequence[int], what: Literal["features", "examples"]) -> list[Any]:
        where = np.asarray(indices, dtype=np.int64)
        starts = np.cumsum([0, *(len(rows) for _, rows in self.parts)])
        part_of = np.searchsorted(starts, where, side="right") - 1
        found: list[Any] = [None] * len(where)
        for number in np.unique(part_of):
            split, rows = self.parts[number]
            places = np.flatnonzero(part_of == number)
            values = getattr(split, what)(rows[where[places] - starts[number]].tolist())
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found


def joined(*splits: Examples) -> Chosen:
    """All examples of these splits."""
    return Chosen(tuple((split, np.arange(len(split))) for split in splits))


def chosen(split: Examples, rows: Indices) -> Chosen:
    """The examples of a split with these indices."""
    return Chosen(((split, rows),))
