"""Splits as the loop sees them: the first examples of one, or several as one. Nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunesmith.tasks.base import Features
from tunesmith.training.spec import Examples


@dataclass(frozen=True)
class Joined:
    """The first examples of each of several splits, one split after the other."""

    parts: tuple[tuple[Examples, int], ...]
    """Each split with how many of its examples there are."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What each example costs, ``[n]``."""
        return np.concatenate([split.lengths[:n] for split, n in self.parts])

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """The units of loss of each, ``[n]``."""
        return np.concatenate([split.counts[:n] for split, n in self.parts])

    def __len__(self) -> int:
        return sum(n for _, n in self.parts)

    def features(self, indices: Sequence[int]) -> list[Features]:
        """The features of these examples, in this order."""
        return self._each(indices, "features")

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples themselves, in this order."""
        return self._each(indices, "examples")

    def _each(self, indices: Sequence[int], what: Literal["features", "examples"]) -> list[Any]:
        where = np.asarray(indices, dtype=np.int64)
        starts = np.cumsum([0, *(n for _, n in self.parts)])
        part_of = np.searchsorted(starts, where, side="right") - 1
        found: list[Any] = [None] * len(where)
        for number in np.unique(part_of):
            places = np.flatnonzero(part_of == number)
            values = getattr(self.parts[number][0], what)((where[places] - starts[number]).tolist())
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found


def joined(*splits: Examples) -> Joined:
    """All examples of these splits."""
    return Joined(tuple((split, len(split)) for split in splits))


def first(split: Examples, n: int) -> Joined:
    """The first ``n`` examples of a split, or all where there are fewer."""
    return Joined(((split, min(n, len(split))),))
