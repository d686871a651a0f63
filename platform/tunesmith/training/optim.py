"""The optimizer and the learning-rate schedule that a recipe names."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from tunesmith.errors import UserError, nearest
from tunesmith.recipe.hf_names import SCHEDULES_BY_METRIC, UNUSABLE_OPTIMIZERS
from tunesmith.recipe.training import TrainingSection
from tunesmith.training.parameters import layer_groups

NAMED = {"adamw_torch": "AdamW", "adamw_torch_fused": "AdamW", "adam": "Adam", "sgd": "SGD", "adafactor": "Adafactor"}
"""Hugging Face's short names → the class in ``torch.optim``; any other class of ``torch.optim`` goes by its own name."""

OURS = frozenset({"self", "params", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs"})
"""Arguments that optimizer and schedule are given by the loop, not by the recipe."""


def check_optimization(settings: TrainingSection, steps: int) -> None:
    """Make optimizer and schedule for one parameter: what cannot be made shows without a model. Raises :class:`UserError`."""
    one_rate = settings.model_copy(update={"layerwise_lr_decay": 1.0})
    optimizer = make_optimizer(torch.nn.Linear(1, 1, bias=False), one_rate, torch.device("cpu"))
    make_schedule(optimizer, settings, steps)


def make_optimizer(model: torch.nn.Module, settings: TrainingSection, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters, in two groups: with weight decay, and without.

    Raises:
        UserError: no such optimizer, or it does not take these arguments.
    """
    name = NAMED.get(settings.optim, settings.optim)
    if name in UNUSABLE_OPTIMIZERS:
        raise UserError(f"training.optim: {name} cannot be used: {UNUSABLE_OPTIMIZERS[name]}\n    → Take adamw_torch_fused")
    optimizer_class = getattr(torch.optim, name, None)
    if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, torch.optim.Optimizer)):
        known = [*NAMED, *(n for n in dir(torch.optim) if n[0].isupper() and n not in ("Optimizer", *NAMED.values()))]
        near = nearest(settings.optim, known)
        raise UserError(
            f"training.optim: {settings.optim!r} is no optimizer\n    → "
            + (f"Did you mean {near!r}? " if near else "")
            + f"There are: {', '.join(known)}"
        )
    _check_arguments("training.optim_args", f"torch.optim.{name}", settings.optim_args, optimizer_class)
    arguments: dict[str, Any] = {"lr": settings.learning_rate}
    if name in ("AdamW", "Adam", "NAdam", "RAdam", "Adamax"):
        arguments |= {"betas": (settings.adam_beta1, settings.adam_beta2), "eps": settings.adam_epsilon}
    if settings.optim == "adamw_torch_fused" and device.type in ("cpu", "cuda"):
        arguments["fused"] = True
    try:
        groups = parameter_groups(model, settings.weight_decay, settings.learning_rate, settings.layerwise_lr_decay)
        return optimizer_class(groups, **(arguments | settings.optim_args))
    except (TypeError, ValueError) as error:
        raise UserError(f"training.optim_args: torch.optim.{name} says: {error}. Given: {settings.optim_args}") from error


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, learning_rate: float | None = None, layerwise_lr_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters that decay, and those that are spared: biases and the weights of normalisation layers.

    With a layer-wise decay there are two such groups for each layer group, from the head down, the learning rate of each being
    ``layerwise_lr_decay`` times that of the one above it (discriminative fine-tuning, Howard and Ruder 2018).

    Raises:
        ModelError: a layer-wise decay is wanted, and the layers cannot be grouped.
    """
    spared = {
        f"{module_name}.{name}" if module_name else name
        for module_name, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if "norm" in type(module).__name__.lower() or name.endswith("bias")
    }
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers: list[tuple[dict[str, float], Iterable[str]]] = [({}, trainable)]
    if layerwise_lr_decay != 1:
        assert learning_rate is not None, "a decayed rate needs the head's"
        layers = [
            ({"lr": learning_rate * layerwise_lr_decay**depth}, group.parameters)
            for depth, group in enumerate(layer_groups(model))
        ]
    groups: list[dict[str, Any]] = []
    for rate, names in layers:
        mine = [name for name in names if name in trainable]
        decaying = [trainable[name] for name in mine if name not in spared]
        others = [trainable[name] for name in mine if name in spared]
        groups += [{"params": decaying, "weight_decay": weight_decay, **rate}, {"params": others, "weight_decay": 0.0, **rate}]
    return [group for group in groups if group["params"]]


def make_schedule(
    optimizer: torch.optim.Optimizer,
    settings: TrainingSection,
    steps: int,
    offset: int = 0,
    *,
    more_is_better: bool = False,
) -> Any:
    """Transformers' schedule over ``steps`` updates, wound forward by ``offset``.

    ``more_is_better`` is of the metric by which those of :data:`SCHEDULES_BY_METRIC` are stepped, unless their ``mode`` says
    otherwise.

    Raises:
        UserError: there is no such schedule, or it does not take these arguments.
    """
    from transformers import get_scheduler
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

    name, arguments = settings.lr_scheduler_type, dict(settings.lr_scheduler_kwargs)
    passed_on = {"reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau, "greedy": GreedyLR}
    makers: dict[Any, Any] = {**TYPE_TO_SCHEDULER_FUNCTION, **passed_on}
    if name in makers:
        _check_arguments("training.lr_scheduler_kwargs", f"the schedule {name}", arguments, makers[name])
    if name in SCHEDULES_BY_METRIC:
        arguments = {"mode": "max" if more_is_better else "min", **arguments}
    warmup = settings.warmup_steps or round(settings.warmup_ratio * steps)
    try:
        schedule = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=arguments or None,
        )
    except (TypeError, ValueError) as error:
        raise UserError(
            f"training.lr_scheduler_type: {name!r} says: {error}. Its arguments stand in training.lr_scheduler_kwargs, "
            f"which now has {settings.lr_scheduler_kwargs or 'none'}"
        ) from error
    wind_forward(schedule, offset)
    return schedule


def _check_arguments(key: str, what: str, given: Iterable[str], made: Callable[..., Any]) -> None:
    """Refuse an argument that ``made`` does not take, and name those that it does."""
    known = [name for name in inspect.signature(made).parameters if name not in OURS]
    for name in given:
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"{key}: {what} takes no argument {name!r}\n    → {f'Did you mean {near!r}? ' if near else ''}"
                f"It takes: {', '.join(known) or 'none'}"
            )


def wind_forward(schedule: Any, steps: int) -> None:
    """Bring a fresh schedule to where it stands after so many updates; one that waits for a metric stays."""
    if on_plateau(schedule):
        return
    with warnings.catch_warnings():
        # torch warns of a schedule that is stepped before its optimizer, which is the point here.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for _ in range(steps):
            schedule.step()


def on_plateau(schedule: Any) -> bool:
    """Whether the schedule is stepped by the validation metric, not by the update."""
    from transformers.optimization import GreedyLR

    kinds = (torch.optim.lr_scheduler.ReduceLROnPlateau, GreedyLR)
    return isinstance(getattr(schedule, "scheduler", schedule), kinds)
