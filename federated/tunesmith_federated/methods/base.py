"""What a federated method is: pure functions over named tensors, on the server's side and on the site's.

A round, in these words::

    server   broadcast(state) ─────────────► sites, beside the model
    site     local(start, sent, own) ──────► hooks of the loop; finish() gives what goes back and what the site keeps
    server   combine(updates) ─► step(parameters, combined, …) ─► the next model, the next state
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from tunesmith_federated.protocol import Tensors


@dataclass(frozen=True)
class Finished:
    """What is left when a site has trained."""

    extras: Tensors
    """Sent beside the update (SCAFFOLD's change of the control variate), named and shaped as what was broadcast."""
    own: Tensors
    """Kept on the site's own disk until its next round (FedBN's layers, SCAFFOLD's control variate)."""


class Local(Protocol):
    """A method while one site trains in one round."""

    @property
    def objective(self) -> Callable[[torch.nn.Module], torch.Tensor] | None:
        """A term added to each update's mean loss, for ``FitContext.objective``."""

    @property
    def gradient(self) -> Callable[[torch.nn.Module], None] | None:
        """Changes the accumulated gradient in place, for ``FitContext.gradient``."""

    def finish(self, end: Tensors, steps: int) -> Finished:
        """``end``: the trained parameters, those that travel and those that stay."""


@dataclass(frozen=True)
class Combined:
    """The cohort's updates as one."""

    update: Tensors
    """float32, the parameters that travel."""
    extras: Tensors
    """The plain mean over the sites (each counts once) of what came beside the updates; empty where nothing did."""
    share: float
    """Sites that are in it, of all sites of the federation, 0 to 1."""


class Method(Protocol):
    """How sites learn together. Implementations are stateless and made from the recipe's ``federation:`` section."""

    name: str
    combine: Literal["mean", "median"]
    """``mean`` weighs each update by its site's examples; ``median`` is coordinate-wise, each site counting once."""
    keeps: bool
    """Whether sites keep anything between rounds."""

    def stays(self, module: torch.nn.Module) -> frozenset[str]:
        """The names of parameters and buffers that never leave a site (FedBN: those of normalisation layers)."""

    def begin(self, parameters: Tensors) -> Tensors:
        """The server's state before round 1, float32; empty where there is none."""

    def broadcast(self, state: Tensors) -> Tensors:
        """What sites are sent beside the model."""

    def local(self, start: Tensors, sent: Tensors, own: Tensors) -> Local:
        """A site's round: from the model ``start``, what came beside it, and what the site kept (empty the first time)."""

    def step(self, parameters: Tensors, combined: Combined, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next model (in the dtypes of ``parameters``) and the next state."""


class Update(Protocol):
    """One site's accepted update, which need not be in memory."""

    site: str
    examples: int

    def names(self) -> Sequence[str]:
        """Of its tensors."""

    def tensor(self, name: str) -> torch.Tensor:
        """One of them, float32."""


Aggregator = Callable[[Sequence[Update], Mapping[str, torch.Tensor]], Tensors]
"""Updates (in any order: the result does not depend on it) and the parameters they belong to → one update, float32. Memory
does not grow with the number of sites. The seam for robust and LoRA-exact aggregation."""
