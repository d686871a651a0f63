"""L2-SP: a pull of the trunk towards the pre-trained weights (Li, Grandvalet and Davoine 2018, arXiv:1802.01483).

The penalty is ``alpha/2 · ‖w_S - w_S⁰‖² + beta/2 · ‖w_N‖²``: S are the parameters shared with the base, N those of the
fresh head. It is added once to each update, in its last micro-batch, to a loss that is the mean over the update's units: ranks
average it over copies of itself, and accumulation does not multiply it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tunesmith.training.base_weights import pretrained_names
from tunesmith.training.spec import FitSpec


@dataclass(frozen=True)
class L2SP:
    """The penalty as a function of the model; its gradient is ``alpha · (w - w⁰)`` and ``beta · w``."""

    alpha: float
    beta: float
    reference: dict[str, torch.Tensor]
    """The base's values of the shared parameters, on the model's device."""

    def __call__(self, model: torch.nn.Module) -> torch.Tensor:
        """A scalar with a graph; frozen parameters bring nothing."""
        shared = head = torch.zeros((), device=next(model.parameters()).device)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            start = self.reference.get(name.removeprefix("module."))  # the prefix of DDP's wrapper
            if start is not None:
                shared = shared + (parameter - start).square().sum()
            elif self.beta:
                head = head + parameter.square().sum()
        return 0.5 * (self.alpha * shared + self.beta * head)


def make_l2_sp(spec: FitSpec, model: torch.nn.Module) -> L2SP | None:
    """The recipe's penalty for a model that still has the base's weights, or None where there is none to add."""
    settings = spec.recipe.training
    if not settings.l2_sp:
        return None
    names = pretrained_names(spec.task, spec.recipe, spec.preprocessing.state, model)
    reference = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if name in names}
    return L2SP(settings.l2_sp, settings.l2_sp_head, reference)
