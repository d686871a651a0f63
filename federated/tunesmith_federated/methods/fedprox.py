"""FedProx: sites are held near the round's model (Li et al. 2020, arXiv:1812.06127, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tunesmith_federated.methods.base import Finished, Local
from tunesmith_federated.methods.fedavg import FedAvg
from tunesmith_federated.methods.moves import trained
from tunesmith_federated.protocol import Tensors


@dataclass
class Held:
    """A site's round with the term ``μ/2 · ‖w - w_t‖²`` over the trained parameters that travel."""

    mu: float
    start: Tensors
    gradient: None = None
    _placed: Tensors = field(default_factory=dict)
    """``start`` as the model has it: on its device, moved there once."""

    def objective(self, model: torch.nn.Module) -> torch.Tensor:
        """A scalar with a graph; its gradient is ``μ (w - w_t)``."""
        total = torch.zeros((), device=next(model.parameters()).device)
        for name, parameter in trained(model):
            if name not in self.start:
                continue
            if name not in self._placed:
                self._placed[name] = self.start[name].to(parameter.device, parameter.dtype)
            total = total + (parameter - self._placed[name]).square().sum()
        return 0.5 * self.mu * total

    def finish(self, end: Tensors, steps: int) -> Finished:
        """Nothing."""
        return Finished({}, {})


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg whose sites minimise ``F_k(w) + μ/2 · ‖w - w_t‖²``; at μ = 0 it is FedAvg."""

    name: str = "fedprox"

    def local(self, start: Tensors, sent: Tensors, own: Tensors) -> Local:
        """Training with the term."""
        return Held(self.section.proximal_mu, start)
