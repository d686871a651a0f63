"""Which examples an epoch is made of: the new ones that the sampler draws, and where old data is replayed, a share of that.

Pure functions of the settings, the seed and the epoch: no number of ranks, no accumulation and no resume changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.training.sampling import make_sampler
from tunesmith.training.spec import Examples, FitData, FitSpec
from tunesmith.training.splits import joined

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
    sampler = make_sampler(spec, new, data.domains, data.groups)
    if old is None:
        return Composition(new, len(new), sampler.units, sampler.draw)
    if not len(old):
        raise DataError("training.replay.data has no rows to replay. Give rows, or leave training.replay out")
    drawn = epoch_size(data, settings.replay.share) - len(new)
    units = sampler.units + drawn * float(old.counts.mean())

    def rows(epoch: int) -> Indices:
        return np.concatenate([sampler.draw(epoch), len(new) + turns(len(old), drawn, settings.seed, epoch)])

    return Composition(joined(new, old), len(new) + drawn, units, rows)


def epoch_size(data: FitData, share: float) -> int:
    """Examples of an epoch: every new one, and the old ones that are replayed among them."""
    return len(data.train) + (replayed(len(data.train), share) if data.replay is not None else 0)


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
