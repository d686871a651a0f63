"""WiSE-FT: the kept model lies between the base and the fine-tuned one (Wortsman et al. 2022, arXiv:2109.01903).

``(1 - alpha) · base + alpha · fine-tuned`` over all parameters that both have in the same shape; a head that was made afresh
has no counterpart in the base and stays fine-tuned. Floating-point buffers (running statistics of batch norm) are mixed alike,
which is an approximation: the paper's models have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.tasks.base import Metrics
from tunesmith.training.base_weights import base_weights
from tunesmith.training.retention import DROP, Watch
from tunesmith.training.spec import Examples, FitContext, FitSpec, OldData
from tunesmith.training.validation import choosing_metric, score, validate


@dataclass(frozen=True)
class Mixed:
    """The share that was taken."""

    alpha: float
    metrics: Metrics
    """On the validation split; empty without one."""
    record: dict[str, Any]
    """Plain data for the manifest: what each share came to."""


def mix(
    spec: FitSpec, model: torch.nn.Module, validation: Examples | None, retention: Mapping[str, OldData] | None = None
) -> Mixed:
    """Put the mixture into the fine-tuned model: the one share, or the best of several on the validation split.

    Shares that are beyond the retention ceiling come after all that are within it.
    """
    asked = spec.recipe.training.wise_ft
    assert asked is not None
    alphas = asked if isinstance(asked, list) else [asked]
    device = next(model.parameters()).device
    base = {name: value.to(device) for name, value in base_weights(spec.task, spec.recipe, spec.preprocessing.state).items()}
    tuned = {name: value.detach().clone() for name, value in model.state_dict().items() if name in base}
    watch = _watch(spec, model, base, tuned, retention or {})
    judged = []
    for alpha in alphas:
        interpolate(model, base, tuned, alpha)
        metrics = validate(spec, model, validation, FitContext()) if validation is not None else {}
        retained = watch.judge(model) if watch is not None else {}
        excess, _ = watch.beyond(retained) if watch is not None else (0.0, "")
        value = score(spec, metrics, excess) if metrics else 0.0
        judged.append((value, alpha, metrics, {key: _number(found[DROP]) for key, found in retained.items()}))
    _, alpha, metrics, _ = max(judged, key=lambda one: one[0])  # the first of equals
    interpolate(model, base, tuned, alpha)
    model.eval()
    name = choosing_metric(spec)
    metrics = {key: float(value) for key, value in metrics.items() if "/" not in key}
    record = {
        "alpha": alpha,
        "metric": name,
        "tried": [{"alpha": a, "value": _number(found.get(name)), "drops": drops} for _, a, found, drops in judged],
        "fresh": sorted(key for key, _ in model.named_parameters() if key not in base),
    }
    return Mixed(alpha, metrics, record)


@torch.no_grad()
def interpolate(
    model: torch.nn.Module, base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], alpha: float
) -> None:
    """Set the parameters that both have to ``(1 - alpha) · base + alpha · tuned``."""
    for name, value in model.state_dict().items():
        if name in tuned and base[name].shape == tuned[name].shape:
            value.copy_((1 - alpha) * base[name] + alpha * tuned[name])


def _number(value: float | None) -> float | None:
    """A number as JSON has it."""
    return None if value is None or not math.isfinite(value) else float(value)


def _watch(
    spec: FitSpec,
    model: torch.nn.Module,
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    sets: Mapping[str, OldData],
) -> Watch | None:
    """The retention sets with what the base makes of them (with the fine-tuned head, where the base has none of its own)."""
    if not sets:
        return None
    interpolate(model, base, tuned, 0.0)
    return Watch(spec, FitContext(), sets, model)
