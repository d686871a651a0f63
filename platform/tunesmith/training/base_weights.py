"""The pre-trained weights beside the model that is trained: what L2-SP pulls towards and WiSE-FT mixes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import State, Task


def base_weights(task: Task, recipe: Recipe, state: State) -> dict[str, torch.Tensor]:
    """The base model's parameters and floating-point buffers by name, on the CPU; those of fresh modules are left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = task.build_model(recipe, state)
    names = pretrained_names(task, recipe, state, model)
    return {name: value.detach().clone() for name, value in _floats(model).items() if name in names}


def pretrained_names(task: Task, recipe: Recipe, state: State, model: torch.nn.Module) -> frozenset[str]:
    """The parameters and floating-point buffers of a freshly built model that come from the base.

    A module is fresh where two builds with different seeds disagree about any of its parameters: a head that was replaced, a
    pooler that the base lacks. Asked this way it holds for every task and architecture, and a fresh bias, which is zero in
    both builds, goes with its weight.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed + 1)
        other = dict(task.build_model(recipe, state).named_parameters())
    fresh = {
        name.rpartition(".")[0]
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter.detach().cpu(), other[name].detach())
    }
    return frozenset(name for name in _floats(model) if name.rpartition(".")[0] not in fresh)


def _floats(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers that are floating-point numbers."""
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
