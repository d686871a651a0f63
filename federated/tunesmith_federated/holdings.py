"""What a site holds: rows to train on, rows held back to judge by, and the frozen state that both were encoded with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import State, Stats, Task
    from tunesmith.training.spec import Examples


@dataclass(frozen=True)
class Held:
    """Opened data of a site."""

    train: Examples
    holdout: Examples | None
    """None where nothing is held back."""
    state: State
    place: str = ""
    """Where prepared data lies of which this is the whole, for other processes of this machine; empty where there is none."""

    @classmethod
    def of(cls, prepared: PreparedData) -> Held:
        """All of it: the training rows, and to judge by those of the split ``test``."""
        return cls(prepared.splits["train"], prepared.splits.get("test"), prepared.state, prepared.path)


@dataclass(frozen=True)
class Counted:
    """What a site says of its rows before it is known which classes all sites share."""

    stats: Stats
    """Of the training rows."""
    train: int
    holdout: int

    @classmethod
    def of(cls, held: Held, task: Task) -> Counted:
        """Of opened data."""
        return cls(task.collect(held.train.examples(range(len(held.train)))), len(held.train), len(held.holdout or ()))


class Holding(Protocol):
    """How a site comes by its data."""

    def count(self, recipe: Recipe, task: Task) -> Counted:
        """What there is, whatever its classes: one alone can be counted, and not opened. Raises as :meth:`open`."""

    def open(self, recipe: Recipe, task: Task) -> Held:
        """The rows as the recipe wants them; its ``data.labels`` are set once all sites' classes are settled.

        Raises :class:`UserError` where they do not fit: a missing column, a label that the recipe lacks.
        """


@dataclass(frozen=True)
class Part:
    """A simulated site's: some rows of data that was prepared for all."""

    prepared: str
    """Where the prepared data is."""
    train: npt.NDArray[np.int64]
    holdout: npt.NDArray[np.int64]

    def count(self, recipe: Recipe, task: Task) -> Counted:
        """As it was prepared."""
        return Counted.of(self.open(recipe, task), task)

    def open(self, recipe: Recipe, task: Task) -> Held:
        """By memory map."""
        from tunesmith.training.splits import chosen

        prepared = opened(self.prepared)
        rows = prepared.splits["train"]
        holdout = chosen(rows, self.holdout) if len(self.holdout) else None
        return Held(chosen(rows, self.train), holdout, prepared.state)


def deal(rows: npt.NDArray[np.int64], share: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A site's rows, cut into those to train on and those held back; at least one of the former, none lost.

    >>> train, holdout = deal(np.arange(10), 0.2, seed=1)
    >>> len(train), len(holdout), sorted([*train, *holdout]) == list(range(10))
    (8, 2, True)
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    held = min(round(share * len(rows)), len(rows) - 1)
    return np.sort(rows[order[held:]]), np.sort(rows[order[:held]])


_opened: dict[str, PreparedData] = {}


def opened(path: str) -> PreparedData:
    """Prepared data, opened once in a process."""
    from tunesmith.data import PreparedData

    if path not in _opened:
        _opened.clear()
        _opened[path] = PreparedData.open(path)
    return _opened[path]
