"""How far a model's representation of the same examples has moved: linear CKA of the trunk's pooled hidden states.

Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited" (arXiv:1905.00414): with the columns of X and Y
centred, ``CKA = ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)``. It is 1 where one is the other turned or scaled as a whole, and falls towards 0
as they part. It needs no head, so it is there where the old head was replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.errors import ModelError
from tunesmith.evaluation.predictor import Encoded, Predictor
from tunesmith.tasks.base import Features

Array = npt.NDArray[np.float64]


class Examples(Encoded, Protocol):
    """Encoded examples that can be had as they were, too."""

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples themselves, by role."""


def linear_cka(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """The similarity of two representations ``[n, d]`` and ``[n, k]`` of the same examples, between 0 and 1.

    NaN where one of them is the same for all examples, or there are fewer than two.
    """
    x, y = (np.asarray(each, dtype=np.float64) for each in (one, other))
    if len(x) < 2:
        return float("nan")
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    if len(x) < min(x.shape[1], y.shape[1]):  # the same numbers from the Gram matrices, which are smaller then
        k, m = x @ x.T, y @ y.T
        shared, sizes = float((k * m).sum()), np.linalg.norm(k) * np.linalg.norm(m)
    else:
        shared, sizes = float(np.square(y.T @ x).sum()), np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return shared / float(sizes) if sizes > 0 else float("nan")


def hidden_states(predictor: Predictor, features: Sequence[Features]) -> Array:
    """The trunk's last hidden states of these examples, averaged over tokens, patches or pixels: ``[n, width]``.

    Raises :class:`ModelError` where the model has no trunk that gives hidden states.
    """
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)
        if isinstance(found, torch.Tensor):
            caught.append(found.detach().float())

    handle = trunk(predictor.model).register_forward_hook(catch)
    try:
        predictor.forward(features)
    finally:
        handle.remove()
    if not caught:
        raise ModelError(
            f"{type(predictor.model).__name__} gives no hidden states of a trunk, so its drift cannot be measured\n"
            "    → Leave evaluation.retention out, or give data with the classes that the base answers with"
        )
    mask = predictor.task.collate(features, predictor.preprocessing).get("attention_mask")
    return pooled(caught[-1].cpu(), mask)


def representation(predictor: Predictor, split: Examples, indices: npt.NDArray[np.int64]) -> Array:
    """The hidden states of these examples of a split, in this order: ``[n, width]``."""
    first = split.examples([int(indices[0])])[0]
    found: list[Array | None] = [None] * len(indices)
    for places in predictor.batches(split.lengths[indices]):
        states = hidden_states(predictor, bare(predictor, first, split.features(indices[places].tolist())))
        for place, state in zip(places, states, strict=True):
            found[int(place)] = state
    return np.stack([state for state in found if state is not None])


def pooled(states: torch.Tensor, mask: torch.Tensor | None) -> Array:
    """Hidden states ``[n, length, width]`` or ``[n, width, height, breadth]`` averaged over positions: ``[n, width]``.

    ``mask`` ``[n, length]`` leaves padding out where it is as long as the states.
    """
    if states.dim() == 4:
        states = states.mean((2, 3))
    elif states.dim() == 3:
        if mask is None or mask.shape != states.shape[:2]:
            mask = torch.ones(states.shape[:2])
        weight = mask.to(states.dtype)[..., None]
        states = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
    return np.asarray(states.flatten(1).double().numpy())


def trunk(model: Any) -> torch.nn.Module:
    """The model below its head, as Transformers knows it; the whole model where it knows none."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside an adapter's wrapper
    found = getattr(inner, "base_model", inner)
    return found if isinstance(found, torch.nn.Module) else inner


def bare(predictor: Predictor, example: Any, features: Sequence[Features]) -> list[Features]:
    """Features without what the task made of the target: the old task's classes mean nothing to the new head.

    ``example`` is any of them; encoding it without its target shows which values the inputs bring.
    """
    inputs = {role: value for role, value in example.items() if role != predictor.task.target}
    kept = predictor.task.encode([inputs], predictor.preprocessing)[0].values
    return [Features({k: v for k, v in one.values.items() if k in kept}, one.length, one.count) for one in features]
