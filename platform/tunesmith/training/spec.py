"""What the loop is given and gives back: the words that :mod:`tunesmith.training.fit` and its callers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.tasks.adapters import Adapters
from tunesmith.tasks.base import Features, Metrics, Preprocessing, Task
from tunesmith.training import checkpoint
from tunesmith.training.batch_plan import MicroBatches
from tunesmith.training.unfreeze import Freezing

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tunesmith.data.domains import Domains
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.losses import Criterion
    from tunesmith.training.averaging import Average
    from tunesmith.training.retention import Watch

Event = dict[str, Any]
Planner = Callable[[int], list[list[MicroBatches]]]


class Examples(Protocol):
    """A split of the prepared data, as far as the loop is concerned."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What each example costs."""

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """The units of loss of each."""

    def __len__(self) -> int:
        """Examples in it."""

    def features(self, indices: Sequence[int]) -> list[Features]:
        """The features of these examples."""

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples themselves, by role."""


@dataclass(frozen=True)
class FitSpec:
    """What is trained."""

    recipe: Recipe
    task: Task
    preprocessing: Preprocessing


@dataclass(frozen=True)
class OldData:
    """A retention set."""

    split: Examples
    by: Literal["score", "drift"] = "score"
    """Whether the base's own head answers with its classes, or only the trunk's representation of it can be compared."""


@dataclass(frozen=True)
class Groups:
    """The group of each training example (``data.groups``)."""

    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    """``[n]``, into ``names``."""

    def take(self, rows: npt.NDArray[np.int64]) -> Groups:
        """The groups of these rows."""
        return Groups(self.names, self.codes[rows])


@dataclass(frozen=True)
class FitData:
    """What it is trained and validated on."""

    train: Examples
    validation: Examples | None = None
    replay: Examples | None = None
    """Old data, of which ``training.replay.share`` is mixed into each epoch."""
    retention: Mapping[str, OldData] = field(default_factory=dict)
    """What the model knew before, watched at each evaluation."""
    domains: Domains | None = None
    """The named data set of each example of ``train``, which weights draw by."""
    groups: Groups | None = None
    """The group of each example of ``train``, which ``data.groups`` draws or weighs by."""


@dataclass
class FitContext:
    """Where the loop runs, and what is done with what it finds."""

    rank: int = 0
    world_size: int = 1
    batches_of: int | None = None
    """Workers whose batches make an update; None: as many as there are ranks. At 1 the ranks share what one would train on."""
    start: checkpoint.Start = field(default_factory=checkpoint.Start)
    steps: int | None = None
    """Stop after so many updates (a federated round); the schedule still spans the whole of training."""
    build: Callable[[], torch.nn.Module] | None = None
    """Makes the model that the task would build, from what is in memory already (a site that trains round after round)."""
    objective: Callable[[torch.nn.Module], torch.Tensor] | None = None
    """A term added to each update's loss (FedProx, L2-SP)."""
    gradient: Callable[[torch.nn.Module], None] | None = None
    """Changes the accumulated gradient in place, before clipping (SCAFFOLD)."""
    planner: Planner | None = None
    """Epoch → updates, instead of the batch plan."""
    report: Callable[[Metrics, Path | None], None] | None = None
    """Called by every rank equally often: at each evaluation and checkpoint. The folder is gone afterwards."""
    event: Callable[[Event], None] = lambda event: None
    """Called on rank 0 for progress and metrics; see :mod:`tunesmith.training.progress` for the kinds."""


@dataclass(frozen=True)
class FitResult:
    """What came out."""

    model: torch.nn.Module
    """The trained model (the last state, not the best: that is in the checkpoints)."""
    place: checkpoint.Place
    history: list[Event]
    """What was reported of training and validation, on rank 0."""
    examples_per_second: float


@dataclass
class Tally:
    """Sums since the last line of the log, of this rank."""

    loss: torch.Tensor | float = 0.0
    """Stays on its device until it is logged: reading it would wait for the device at every step."""
    units: int = 0
    examples: int = 0
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)


@dataclass
class Trainee:
    """The model with all that moves it."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: Any
    schedule: Any
    units_per_update: float
    """Loss units of an update on average: what summed losses are divided by."""
    criterion: Criterion
    """The recipe's loss with its weights, on the model's device."""
    freezing: Freezing
    """Which parameters are trained at which update."""
    adapters: Adapters | None = None
    """The adapters that stand in the model."""
    penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None
    """A term added once to each update's mean loss (L2-SP)."""
    average: Average | None = None
    """The moving average of the weights, which is judged and kept in their place."""
    watch: Watch | None = None
    """What the model knew before, and what the base made of it."""
    window: Tally = field(default_factory=Tally)
    """Plain log loss of what was trained on since the last evaluation: the other side of the gap to the validation loss."""
