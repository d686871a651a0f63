"""Augmentation: training examples changed at random, by the seed of the run, the epoch, the example, and its draw alone.

So an example is changed in the same way whatever the batch, the rank or the number of accumulation steps it meets, and after a
resume; and where balanced sampling or replay draws it several times in an epoch, each time in another way. A task that can
augment has the methods of :class:`Augments`, and says in ``augmentations`` which operations it takes.

The batch plan goes by the prepared lengths and counts. A text may come out some tokens shorter or longer, and a sentence with
fewer words; so a batch's padded size and an update's units of loss differ a little from the plan, on all ranks alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tunesmith.recipe.augment import AnyOperation
from tunesmith.tasks.base import Batch, Features, Preprocessing

if TYPE_CHECKING:
    Generator = np.random.Generator

SAMPLES = "augmented/samples.json"
"""Where a run keeps samples of what came out."""

CHANGE, MIX = 1, 2
"""The streams of random numbers of an example: what it is changed by, and what it is joined with."""


class Source(Protocol):
    """The training split, as far as augmentation is concerned."""

    def __len__(self) -> int:
        """Examples in it."""

    def features(self, indices: Sequence[int]) -> list[Features]:
        """What the task stored of these examples."""

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples themselves, by role."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to the training examples of one batch."""

    operations: Sequence[AnyOperation]
    seed: int
    """The run's seed."""
    epoch: int = 0
    """From 0."""
    copies: Sequence[int] = ()
    """How often each example of the batch was drawn before in the epoch; empty where none was."""

    def rng(self, index: int, stream: int = CHANGE, copy: int = 0) -> Generator:
        """The random numbers of one example."""
        return np.random.default_rng((self.seed, self.epoch, index, copy, stream))

    def rngs(self, indices: Sequence[int], stream: int = CHANGE) -> list[Generator]:
        """Those of each example of the batch."""
        copies = self.copies or [0] * len(indices)
        return [self.rng(index, stream, copy) for index, copy in zip(indices, copies, strict=True)]


@runtime_checkable
class Augments(Protocol):
    """A task that can augment its examples."""

    augmentations: Sequence[str]
    """The names of the operations that it takes; see :mod:`tunesmith.recipe.augment`."""

    def augment(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> Batch:
        """The tensors of these examples after augmentation: what ``collate`` makes of them unchanged."""

    def augmented(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> list[dict[str, Any]]:
        """The same for people: the examples by role as they come out, images as uint8 ``[height, width, channels]``."""
