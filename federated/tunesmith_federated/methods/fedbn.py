"""FedBN: normalisation layers stay at their site (Li et al. 2021, arXiv:2102.07623, algorithm 1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from tunesmith_federated.methods.base import Finished, Local
from tunesmith_federated.methods.fedavg import FedAvg
from tunesmith_federated.protocol import Tensors

_NORMS = re.compile(r"(Batch|Layer|Group|Instance|RMS)Norm(Act)?(\dd)?$")
"""Names of classes: ``BatchNorm2d``, ``LlamaRMSNorm``, ``T5LayerNorm``, timm's ``BatchNormAct2d``."""


@dataclass(frozen=True)
class Keeping:
    """A site's round that keeps what the server did not send."""

    start: Tensors
    objective: None = None
    gradient: None = None

    def finish(self, end: Tensors, steps: int) -> Finished:
        """What ``start``, the model as the server sent it, does not have."""
        return Finished({}, {name: tensor for name, tensor in end.items() if name not in self.start})


@dataclass(frozen=True)
class FedBN(FedAvg):
    """FedAvg over everything but normalisation layers, their parameters and their running statistics."""

    name: str = "fedbn"
    keeps: bool = True

    def stays(self, module: torch.nn.Module) -> frozenset[str]:
        """Parameters and buffers of every normalisation layer."""
        names: set[str] = set()
        for path, layer in module.named_modules():
            if _NORMS.search(type(layer).__name__):
                held = [*layer.named_parameters(), *layer.named_buffers()]
                names |= {(f"{path}.{name}" if path else name).removeprefix("module.") for name, _ in held}
        return frozenset(names)

    def local(self, start: Tensors, sent: Tensors, own: Tensors) -> Local:
        """Plain training; the site puts its ``own`` layers into the model before."""
        return Keeping(start)
