"""FedAvg: sites train alone, and the next model is the mean of theirs, weighed by examples (arXiv:1602.05629, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from tunesmith.recipe.federation import FederationSection
from tunesmith_federated.methods.base import Combined, Finished, Local
from tunesmith_federated.methods.moves import moved
from tunesmith_federated.protocol import Tensors


@dataclass(frozen=True)
class Alone:
    """A site that trains as it would without others: no hooks, nothing sent beside the update, nothing kept."""

    objective: Callable[[torch.nn.Module], torch.Tensor] | None = None
    gradient: Callable[[torch.nn.Module], None] | None = None

    def finish(self, end: Tensors, steps: int) -> Finished:
        """Nothing."""
        return Finished({}, {})


@dataclass(frozen=True)
class FedAvg:
    """``w ← w + η · Σ_k n_k/n · Δ_k``; the paper's own at η = 1. The other methods change one of its steps."""

    section: FederationSection
    name: str = "fedavg"
    combine: Literal["mean", "median"] = "mean"
    keeps: bool = False
    default_rate: float = 1.0

    @property
    def rate(self) -> float:
        """η, the server's step along the combined update."""
        return self.section.server_learning_rate or self.default_rate

    def stays(self, module: torch.nn.Module) -> frozenset[str]:
        """Nothing: the whole model is shared."""
        return frozenset()

    def begin(self, parameters: Tensors) -> Tensors:
        """No state."""
        return {}

    def broadcast(self, state: Tensors) -> Tensors:
        """Nothing beside the model."""
        return {}

    def local(self, start: Tensors, sent: Tensors, own: Tensors) -> Local:
        """Plain training."""
        return Alone()

    def step(self, parameters: Tensors, combined: Combined, state: Tensors) -> tuple[Tensors, Tensors]:
        """Along the sites' update."""
        return moved(parameters, combined.update, self.rate), state
