"""FedAdam: Adam on the server (Reddi et al. 2021, arXiv:2003.00295, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tunesmith_federated.methods.base import Combined
from tunesmith_federated.methods.fedavg import FedAvg
from tunesmith_federated.methods.moves import directions, moved, zeros
from tunesmith_federated.protocol import Tensors


@dataclass(frozen=True)
class FedAdam(FedAvg):
    """``m ← β₁ m + (1 - β₁) Δ``, ``v ← β₂ v + (1 - β₂) Δ²``, ``w ← w + η m / (√v + τ)``.

    There is no correction of bias, as in the paper, which tunes η for each task over powers of ten around the default here.
    """

    name: str = "fedadam"
    default_rate: float = 0.01

    def begin(self, parameters: Tensors) -> Tensors:
        """Both moments: m = 0, and v = τ², the least that the algorithm allows."""
        first = {f"m/{name}": tensor for name, tensor in zeros(parameters).items()}
        second = {f"v/{name}": torch.full_like(t, self.section.server_tau**2) for name, t in zeros(parameters).items()}
        return {**first, **second}

    def step(self, parameters: Tensors, combined: Combined, state: Tensors) -> tuple[Tensors, Tensors]:
        """Along the first moment, each coordinate by the root of its second."""
        first, second = self.section.server_beta1, self.section.server_beta2
        moves, state = dict(combined.update), dict(state)
        for name, update in directions(parameters, combined.update):
            mean = state[f"m/{name}"] = first * state[f"m/{name}"] + (1 - first) * update
            square = state[f"v/{name}"] = second * state[f"v/{name}"] + (1 - second) * update.square()
            moves[name] = mean / (square.sqrt() + self.section.server_tau)
        return moved(parameters, moves, self.rate), state
