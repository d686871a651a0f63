"""The model that sites and server share: built once in a process, and which of its tensors travel."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunesmith.recipe import Recipe
    from tunesmith.tasks.adapters import Adapters
    from tunesmith.tasks.base import State, Task
    from tunesmith_federated.methods.base import Method
    from tunesmith_federated.protocol import Tensors


class Base:
    """The pre-trained model with its head, as the recipe builds it, kept in memory."""

    def __init__(self, recipe: Recipe, task: Task, state: State) -> None:
        torch.manual_seed(recipe.training.seed)
        self._recipe, self._model = recipe, task.build_model(recipe, state)

    def build(self) -> torch.nn.Module:
        """A copy, to be trained: what ``FitContext.build`` calls."""
        return copy.deepcopy(self._model)

    def stays(self, method: Method) -> frozenset[str]:
        """The names of what the method keeps at the sites."""
        return method.stays(self._model)

    def adapted(self) -> tuple[torch.nn.Module, Adapters | None]:
        """A copy with what ``training.adaptation`` puts into it."""
        from tunesmith.training.adaptation import adapt

        torch.manual_seed(self._recipe.training.seed)
        model = self.build()
        return model, adapt(model, self._recipe, self.build)


def travelling(model: torch.nn.Module, method: Method) -> list[str]:
    """The names of what is exchanged: parameters that are trained, and running statistics where the trunk is trained.

    What the method keeps at the sites is not among them.
    """
    stays = method.stays(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    whole = all(parameter.requires_grad for parameter in model.parameters())
    there = model.state_dict()
    buffers = {name for name, buffer in model.named_buffers() if whole and name in there and buffer.is_floating_point()}
    return sorted(name for name in trained | buffers if name not in stays)


def tensors_of(model: torch.nn.Module, names: Iterable[str]) -> Tensors:
    """Copies of these tensors of the model, on the CPU."""
    there = model.state_dict()
    return {name: there[name].detach().to("cpu", copy=True) for name in names}


def put(model: torch.nn.Module, tensors: Tensors) -> None:
    """Write these tensors into the model."""
    unknown = model.load_state_dict(tensors, strict=False).unexpected_keys
    assert not unknown, f"the model has no {unknown[:3]}"


def size(tensors: Tensors) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
