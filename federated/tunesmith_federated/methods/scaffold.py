"""SCAFFOLD: control variates take the drift of each site out of its steps (Karimireddy et al. 2020, arXiv:1910.06378).

Each step goes along ``g - c_i + c``. Afterwards the site's variate is the mean of the *uncorrected* gradients on its path. With
plain SGD at a constant rate that is the paper's option II to the letter: ``y = x - η Σ (g - c_i + c)``, hence
``c_i - c + (x - y) / (K η) = Σ g / K``. With AdamW, momentum, clipping or a schedule, where (x - y) / (K η) is no gradient, it
is still one. The server adds the updates weighed by examples, where the paper's sites all have as many.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tunesmith_federated.methods.base import Combined, Finished, Local
from tunesmith_federated.methods.fedavg import FedAvg
from tunesmith_federated.methods.moves import moved, trained, zeros
from tunesmith_federated.protocol import Tensors


@dataclass
class Corrected:
    """A site's round whose every gradient has ``c - c_i`` added to it, for each parameter that has a variate."""

    server: Tensors
    """c"""
    own: Tensors
    """c_i; what is missing is 0."""
    objective: None = None
    _corrections: Tensors = field(default_factory=dict)
    """c - c_i, on the model's device."""
    _sums: Tensors = field(default_factory=dict)
    """Of the uncorrected gradients, float32, on the model's device."""
    _counts: dict[str, int] = field(default_factory=dict)
    """Steps in which each parameter had a gradient: frozen ones have none until they are unfrozen."""

    @torch.no_grad()
    def gradient(self, model: torch.nn.Module) -> None:
        """Take in the update's gradient, then correct it in place. All ranks hold the same gradient, so all do the same."""
        for name, parameter in trained(model):
            if parameter.grad is None or name not in self.server:
                continue
            if name not in self._sums:
                correction = self.server[name] - self.own.get(name, torch.zeros_like(self.server[name]))
                self._corrections[name] = correction.to(parameter.device, parameter.grad.dtype)
                self._sums[name] = torch.zeros_like(parameter.grad, dtype=torch.float32)
            self._sums[name] += parameter.grad
            self._counts[name] = self._counts.get(name, 0) + 1
            parameter.grad += self._corrections[name]

    def finish(self, end: Tensors, steps: int) -> Finished:
        """``c_i⁺ - c_i`` goes back and ``c_i⁺`` is kept; a parameter that was never trained keeps its variate."""
        kept, changes = {}, {}
        for name, server in self.server.items():
            before = self.own.get(name, torch.zeros_like(server))
            kept[name] = self._sums[name].cpu() / self._counts[name] if name in self._sums else before
            changes[name] = kept[name] - before
        return Finished(changes, kept)


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """``w ← w + η · mean(Δ)``, ``c ← c + |S|/N · mean(c_i⁺ - c_i)``."""

    name: str = "scaffold"
    keeps: bool = True

    def begin(self, parameters: Tensors) -> Tensors:
        """The server's control variate: c = 0."""
        return zeros(parameters)

    def broadcast(self, state: Tensors) -> Tensors:
        """The server's control variate."""
        return state

    def local(self, start: Tensors, sent: Tensors, own: Tensors) -> Local:
        """Training along corrected gradients."""
        return Corrected(sent, own)

    def step(self, parameters: Tensors, combined: Combined, state: Tensors) -> tuple[Tensors, Tensors]:
        """Along the update; c moves by the share of the sites that took part."""
        variate = {
            name: tensor + combined.share * combined.extras[name] if name in combined.extras else tensor
            for name, tensor in state.items()
        }
        return moved(parameters, combined.update, self.rate), variate
