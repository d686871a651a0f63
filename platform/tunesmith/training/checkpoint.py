"""What a checkpoint holds, and how training goes on from it.

::

    model/          Hugging Face's layout, with processor and tunesmith.json: usable as it is
                    (adapter/ in it where adapters are trained; the weights around it have them merged in)
    weights.pt      the weights that training goes on with, where model/ holds their moving average
    optimizer.pt    the optimizer's state, tensors only (read with weights_only)
    training.json   step, epoch, place in the epoch, best metric so far

There is no state of random generators in it: every update seeds them from (seed, step, rank), so that a resumed run draws the
same numbers as an uninterrupted one.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tunesmith import storage
from tunesmith.runs.artefact import Artefact
from tunesmith.tasks import hub
from tunesmith.tasks.adapters import FOLDER, Adapters
from tunesmith.training.optim import wind_forward

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tunesmith.tasks.base import Preprocessing, Task

Mode = Literal["exact", "weights", "perturbed"]

RAW = "weights.pt"


@dataclass
class Place:
    """How far training has come: all that the loop must know to go on."""

    step: int = 0
    """Updates done."""
    epoch: int = 0
    """The epoch under way, from 0."""
    update: int = 0
    """Updates done of that epoch."""
    best: float | None = None
    """The best value of the metric that chooses the checkpoint."""
    best_step: int | None = None
    """The step at which it was reached."""
    waited: int = 0
    """Evaluations since then."""
    stopped_early: bool = False
    """Whether patience ran out, or the retention ceiling was reached."""
    stopped_by: str = ""
    """Why, where it was not patience."""
    window_loss: float = 0.0
    """Sum of the training losses since the last evaluation, over all ranks."""
    window_units: float = 0.0
    """Units of loss in it."""


@dataclass(frozen=True)
class Start:
    """Where training begins."""

    checkpoint: Path | None = None
    """A folder in this module's layout."""
    tensors: dict[str, torch.Tensor] | None = None
    """Parameters by name (a federated round)."""
    place: Place | None = None
    """How far training has come, where it begins from ``tensors`` (the rounds that lie behind)."""
    mode: Mode = "exact"
    """``exact`` goes on as if nothing had happened; ``weights`` takes the parameters and starts afresh; ``perturbed`` keeps
    the optimizer's moments and the place, under the new recipe's hyperparameters (population-based training)."""


def save(
    folder: Path,
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    place: Place,
    task: Task,
    preprocessing: Preprocessing,
    raw: dict[str, torch.Tensor] | None = None,
    adapters: Adapters | None = None,
) -> None:
    """Write a checkpoint; every rank calls, rank 0 writes. ``raw``: the weights of training, where the model has others."""
    weights = accelerator.get_state_dict(model)
    moments = _optimizer_state(model, optimizer, accelerator)
    if not accelerator.is_main_process:
        return
    save_model(folder / "model", accelerator.unwrap_model(model), task, preprocessing, weights, adapters)
    if raw is not None:
        torch.save({name: value.cpu() for name, value in raw.items()}, folder / RAW)
    torch.save({"optimizer": moments, "schedule": schedule.state_dict()}, folder / "optimizer.pt")
    storage.write_json(folder / "training.json", asdict(place))


def save_model(
    folder: Path,
    model: Any,
    task: Task,
    preprocessing: Preprocessing,
    weights: dict[str, torch.Tensor] | None = None,
    adapters: Adapters | None = None,
) -> None:
    """The model's folder: config, safetensors, processor, and what our predictor needs.

    Adapters are kept in ``adapter/``; the weights are those of the model with the adapters merged into it, or left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapters is not None:
        weights = model.state_dict() if weights is None else weights
        adapters.write(folder / FOLDER, weights)
        weights = adapters.merged(model, weights) if adapters.merge else None
    with hub.quiet():
        if adapters is None or adapters.merge:
            model.save_pretrained(folder, state_dict=weights)
        else:
            model.config.save_pretrained(folder)
    if preprocessing.processor is not None:
        preprocessing.processor.save_pretrained(folder)
    Artefact(task=task.name, state=dict(preprocessing.state)).write(folder)


def load_weights(folder: Path, model: torch.nn.Module, task: Task, adapters: Adapters | None = None) -> None:
    """Put a checkpoint's parameters into the model; those of the adapters and the head, where adapters are trained.

    Through ``from_pretrained``: Transformers may rename and reshape parameters on their way to and from the disk.
    """
    if adapters is not None:
        adapters.load(folder / "model" / FOLDER, model)
        return
    model.load_state_dict(task.load_model(str(folder / "model")).state_dict())


def load_raw_weights(folder: Path, model: torch.nn.Module) -> None:
    """Put the weights of training into the model, where the checkpoint's model folder holds others."""
    if (folder / RAW).exists():
        model.load_state_dict(torch.load(folder / RAW, map_location="cpu", weights_only=True))


def load_progress(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, accelerator: Accelerator, mode: Mode
) -> Place:
    """Optimizer, schedule and place of a checkpoint; under ``perturbed`` the recipe's hyperparameters stay."""
    saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    place = Place(**storage.read_json(folder / "training.json"))
    wanted = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    _load_optimizer_state(model, optimizer, saved["optimizer"], accelerator)
    if mode == "exact":
        schedule.load_state_dict(saved["schedule"])
        return place
    for group, values in zip(optimizer.param_groups, wanted, strict=True):
        group.update(values)
    wind_forward(schedule, place.step)
    return place


def seed_update(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed every generator for one update of one rank: dropout and masks depend on nothing that came before.

    On the CPU its generator alone: ``torch.manual_seed`` also leaves word for devices that nobody uses yet, and writes down the
    whole stack each time.
    """
    drawn = int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 (models in Transformers draw from the global generator)
    if device.type == "cpu":
        torch.default_generator.manual_seed(drawn)
    else:
        torch.manual_seed(drawn)


def _optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> Any:
    if not accelerator.is_fsdp2:
        return _inner(optimizer).state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    return get_optimizer_state_dict(model, _inner(optimizer), options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _load_optimizer_state(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: Any, accelerator: Accelerator
) -> None:
    if not accelerator.is_fsdp2:
        _inner(optimizer).load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(model, _inner(optimizer), state, options=StateDictOptions(full_state_dict=True))


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, without Accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
