"""Which parameters are trained at which update: gradual unfreezing (ULMFiT, Howard and Ruder 2018), and what else stays frozen.

The schedule is a function of the update's number alone, so that a resumed run stands where the interrupted one stood. The
optimizer has all parameters from the start: those that are not trained yet have no gradient, hence no moments and no decay.

Under DDP a new stage gets a new wrapper. Its reducer knows the trained parameters only: the others are neither waited for nor
sent. (``find_unused_parameters`` would look for them in every update, and send them as zeros.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from tunesmith.errors import UserError
from tunesmith.training.collective import leave_buffers
from tunesmith.training.parameters import LayerGroup, head_parameters, layer_groups, with_running_statistics

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tunesmith.recipe.adaptation import UnfreezeSection
    from tunesmith.recipe.training import TrainingSection


@dataclass(frozen=True)
class Stage:
    """Layer groups that begin to train together."""

    step: int
    """The updates done before they join."""
    groups: tuple[LayerGroup, ...]


def stages(groups: Sequence[LayerGroup], settings: UnfreezeSection, steps: int, per_epoch: int) -> list[Stage]:
    """The schedule: the head from the first update, the other groups from their own.

    Args:
        groups: from the head down.
        steps: updates of the whole training.
        per_epoch: updates of an epoch.

    Raises:
        UserError: a group would join only when training is over; says what would fit.
    """
    every = settings.every_steps or (settings.every_epochs or 0.0) * per_epoch
    at_once = settings.groups_at_once
    joining = [groups[:1], *(groups[at : at + at_once] for at in range(1, len(groups), at_once))]
    found = [Stage(max(index, math.ceil(index * every - 1e-9)), tuple(part)) for index, part in enumerate(joining)]
    last = found[-1]
    if last.step < steps:
        return found
    pace = f"every {settings.every_steps} updates" if settings.every_steps else f"every {settings.every_epochs:g} epochs"
    joins = math.ceil(steps / every) - 1
    more = f"training.unfreeze.groups_at_once={math.ceil((len(groups) - 1) / joins)} or " if joins > 0 else ""
    longest = (steps - 1) / (len(found) - 1)
    shorter = f"every_epochs={_rounded_down(longest / per_epoch):g}"
    if settings.every_steps:
        shorter = f"every_steps={max(1, int(longest))}"
    raise UserError(
        f"training.unfreeze: the schedule is longer than the training. The model has {len(groups)} layer groups, "
        f"{at_once} at once join {pace}: the last ({last.groups[-1].name}) would begin after step {last.step}, and there "
        f"are {steps} steps\n"
        f"    → Write {more}training.unfreeze.{shorter}, or train longer"
    )


def _rounded_down(value: float) -> float:
    """At most two digits that count, so that people would write it.

    >>> _rounded_down(0.8571), _rounded_down(0.0123), _rounded_down(12.34)
    (0.85, 0.012, 12.0)
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.floor(value / unit + 1e-9) * unit, 12)


class Freezing:
    """What is frozen at which update, of one model. Where nothing ever is, it does nothing.

    ``trainable`` has the numbers of each parameter that is trained sooner or later, by its name.
    """

    def __init__(self, model: torch.nn.Module, settings: TrainingSection, steps: int, per_epoch: int) -> None:
        """Only parameters that need gradients now are ever unfrozen. Nothing is changed yet.

        Raises:
            ModelError: the layers cannot be grouped.
            UserError: the schedule is longer than the training.
        """
        self.trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
        self._model = model
        self._moving = dict(with_running_statistics(model))
        self._stage = -1
        self.stages: list[Stage] = []
        if settings.unfreeze.on:
            groups = [one for one in layer_groups(model) if self.trainable.keys() & set(one.parameters)]
            self.stages = stages(groups, settings.unfreeze, steps, per_epoch)
        self._never: list[torch.nn.Module] = []
        if settings.adaptation == "linear-probe":
            self._never = _outside(model, set(head_parameters(model)))
        elif settings.adaptation != "full":
            in_head = {name.rpartition(".")[0] for name in head_parameters(model)}
            self._never = [module for name, module in self._moving.items() if name not in in_head]
        self._not_yet: list[torch.nn.Module] = []

    def begin(self) -> None:
        """Freeze all but the first group, before the model is prepared for all ranks."""
        if self.stages:
            self._enter(0)

    def stage(self, step: int) -> int:
        """The stage in which the update after ``step`` updates falls."""
        return sum(stage.step <= step for stage in self.stages) - 1

    def advance(self, model: torch.nn.Module, accelerator: Accelerator, step: int) -> torch.nn.Module:
        """Bring the model to where it stands at the update after ``step`` updates; in a new wrapper where the stage is new."""
        stage = self.stage(step)
        if stage != self._stage:
            self._enter(stage)
            model = _rewrapped(model, accelerator)
        self.hold()
        return model

    def hold(self) -> None:
        """Keep frozen layers from changing by being run: their running statistics stay (a probe's whole trunk: no dropout)."""
        for module in (*self._never, *self._not_yet):
            module.train(False)

    def _enter(self, stage: int) -> None:
        self._stage = stage
        there = {name for one in self.stages[: stage + 1] for group in one.groups for name in group.parameters}
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name in self.trainable and name in there)
        for module in self._not_yet:
            module.train()
        frozen = {name for one in self.stages[stage + 1 :] for group in one.groups for name in group.modules}
        self._not_yet = [module for name, module in self._moving.items() if name in frozen]


def _outside(model: torch.nn.Module, head: set[str]) -> list[torch.nn.Module]:
    """The largest modules without a parameter of the head in them, dropout beside the head not among them."""
    found: list[torch.nn.Module] = []
    for name, child in model.named_children():
        inside = {f"{name}.{one}" for one, _ in child.named_parameters()}
        if not inside:
            continue
        if not inside & head:
            found.append(child)
        elif not inside <= head:
            found += _outside(child, {one.removeprefix(f"{name}.") for one in head if one.startswith(f"{name}.")})
    return found


def _rewrapped(model: torch.nn.Module, accelerator: Any) -> torch.nn.Module:
    """The model in a new DDP whose reducer knows the parameters that are trained now; as it is where it is in none."""
    if not isinstance(model, DistributedDataParallel):
        return model
    new = DistributedDataParallel(
        model.module,
        device_ids=model.device_ids,
        output_device=model.output_device,
        gradient_as_bucket_view=True,
        init_sync=False,  # every rank has the same weights already
    )
    leave_buffers(new)
    # Accelerate would keep the old wrapper, and its buckets, alive.
    accelerator._models[:] = [new if one is model else one for one in accelerator._models]
    return new
