"""FedAvgM: FedAvg with momentum on the server (Hsu, Qi and Brown 2019, arXiv:1909.06335, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith_federated.methods.base import Combined
from tunesmith_federated.methods.fedavg import FedAvg
from tunesmith_federated.methods.moves import directions, moved, zeros
from tunesmith_federated.protocol import Tensors


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """``v ← β v + Δ``, ``w ← w + η v``; the paper has η = 1."""

    name: str = "fedavgm"

    def begin(self, parameters: Tensors) -> Tensors:
        """The momentum: v = 0."""
        return zeros(parameters)

    def step(self, parameters: Tensors, combined: Combined, state: Tensors) -> tuple[Tensors, Tensors]:
        """Along the momentum."""
        beta = self.section.server_momentum
        momentum = {name: beta * state[name] + update for name, update in directions(parameters, combined.update)}
        return moved(parameters, {**combined.update, **momentum}, self.rate), {**state, **momentum}
