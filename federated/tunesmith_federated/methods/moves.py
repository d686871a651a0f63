"""The server's arithmetic on named tensors, and the names of a model's parameters: what the methods share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from tunesmith_federated.protocol import Tensors

_STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})


def is_statistic(name: str) -> bool:
    """Whether it is a running statistic of a normalisation layer: a mean to be averaged, and no direction to go along.

    Adam or momentum on a variance could make it negative, so every method takes the sites' mean of these as it is.

    >>> is_statistic("bn.running_var"), is_statistic("bn.weight")
    (True, False)
    """
    return name.rpartition(".")[2] in _STATISTICS


def directions(
    parameters: Mapping[str, torch.Tensor], update: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """What an optimizer may work on: the float32 updates of real numbers that are no running statistics."""
    for name in zeros(parameters):
        if name in update:
            yield name, update[name].float()


def moved(parameters: Tensors, moves: Mapping[str, torch.Tensor], rate: float = 1.0) -> Tensors:
    """``parameters + rate · moves``, summed in float32 (whole numbers in float64, rounded), in the dtypes of ``parameters``.

    Running statistics move by the whole of it whatever the rate; what has no move stays as it is.
    """
    result: Tensors = {}
    for name, start in parameters.items():
        move = moves.get(name)
        if move is None:
            result[name] = start
            continue
        step = 1.0 if is_statistic(name) else rate
        if start.is_floating_point():
            result[name] = (start.float() + step * move.float()).to(start.dtype)
        else:
            result[name] = (start.double() + step * move.double()).round().to(start.dtype)
    return result


def zeros(parameters: Mapping[str, torch.Tensor]) -> Tensors:
    """A float32 zero for each parameter that has a direction."""
    return {
        name: torch.zeros(tensor.shape, dtype=torch.float32)
        for name, tensor in parameters.items()
        if tensor.is_floating_point() and not is_statistic(name)
    }


def trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters that are trained, by their names without DDP's prefix."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix("module."), parameter
