"""Which examples an epoch is made of: the new ones that the sampler draws, and where old data is replayed, a share of that.

Pure functions of the settings, the seed and the epoch: no number of ranks, no accumulation and no resume changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.tasks.base import Features
from tunesmith.training.sampling import make_sampler
from tunesmith.training.spec import Examples, FitData, FitSpec

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Composition:
    """The examples of training, and those of them that each epoch sees."""

    examples: Examples
    """Everything that an index can mean: the new examples, then the old ones."""
    size: int
    """Examples of an epoch, the same for every epoch."""
    units: float
    """Units of loss of an epoch, on average."""
    rows: Callable[[int], Indices]
    """Epoch → indices into ``examples``, ``[size]``."""


def compose(spec: FitSpec, data: FitData) -> Composition:
    """The composition that the recipe asks for. Raises :class:`DataError` where old data of no rows is to be replayed."""
    new, old, settings = data.train, data.replay, spec.recipe.training
    sampler = make_sampler(spec, new, data.domains)
    if old is None:
        return Composition(new, len(new), sampler.units, sampler.draw)
    if not len(old):
        raise DataError("training.replay.data has no rows to replay. Give rows, or leave training.replay out")
    drawn = replayed(len(new), settings.replay.share)
    units = sampler.units + drawn * float(old.counts.mean())

    def rows(epoch: int) -> Indices:
        return np.concatenate([sampler.draw(epoch), len(new) + turns(len(old), drawn, settings.seed, epoch)])

    return Composition(Joined(new, old), len(new) + drawn, units, rows)


def replayed(new: int, share: float) -> int:
    """Old examples of an epoch of ``new`` new ones, such that they are ``share`` of both together; at least one.

    >>> replayed(80, 0.2), replayed(100, 0.5)
    (20, 100)
    """
    return max(1, round(new * share / (1 - share)))


def turns(n: int, drawn: int, seed: int, epoch: int) -> Indices:
    """The old examples of an epoch ``[drawn]``: the next ones of an endless row of shuffled decks, so that all take turns.

    >>> sorted([*turns(4, 2, seed=0, epoch=0).tolist(), *turns(4, 2, seed=0, epoch=1).tolist()])
    [0, 1, 2, 3]
    """
    places = np.arange(epoch * drawn, (epoch + 1) * drawn, dtype=np.int64)
    decks = {int(k): np.random.default_rng((seed, int(k), _REPLAY)).permutation(n) for k in np.unique(places // n)}
    return np.array([decks[int(place // n)][place % n] for place in places], dtype=np.int64)


_REPLAY = 0x5EED
"""Keeps these draws apart from those of the batch plan."""


@dataclass(frozen=True)
class Joined:
    """Two splits as one: the examples of ``first``, then those of ``second``."""

    first: Examples
    second: Examples

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What each example costs."""
        return np.concatenate([self.first.lengths, self.second.lengths])

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """The units of loss of each."""
        return np.concatenate([self.first.counts, self.second.counts])

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def features(self, indices: Sequence[int]) -> list[Features]:
        """The features of these examples, in this order."""
        return self._each(indices, self.first.features, self.second.features)

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples themselves, in this order."""
        return self._each(indices, self.first.examples, self.second.examples)

    def _each(self, indices: Sequence[int], one: Callable[..., list[Any]], other: Callable[..., list[Any]]) -> list[Any]:
        where = np.asarray(indices, dtype=np.int64)
        late = where >= len(self.first)
        found: list[Any] = [None] * len(where)
        for mask, ask, offset in ((~late, one, 0), (late, other, len(self.first))):
            places = np.flatnonzero(mask)
            if len(places):
                for place, value in zip(places, ask((where[places] - offset).tolist()), strict=True):
                    found[place] = value
        return found
