"""How many updates a training has, and which examples each of them sees: the recipe's settings put into the batch plan."""

from __future__ import annotations

import math

from tunesmith.errors import DataError
from tunesmith.training.batch_plan import MicroBatches, PlanSettings, plan, updates_per_epoch
from tunesmith.training.composition import Composition
from tunesmith.training.spec import FitContext, FitSpec, Planner


def count_updates(spec: FitSpec, examples: int, context: FitContext) -> tuple[int, int]:
    """Updates of the whole training, and of an epoch of so many examples.

    Raises:
        DataError: there are fewer examples than micro-batches in an update.
    """
    settings = spec.recipe.training
    if context.planner is not None:
        per_epoch = len(context.planner(0))
    else:
        parts = context.world_size * settings.gradient_accumulation_steps
        if examples < parts:
            steps = settings.gradient_accumulation_steps
            fewer = "training.num_workers" if context.batches_of is None else "the number of workers"
            raise DataError(
                f"{examples} training examples cannot fill {context.world_size} workers × {steps} accumulation "
                f"step{'s' * (steps != 1)}: an update needs {parts} at least\n"
                f"    → Lower {fewer}{' or training.gradient_accumulation_steps' * (steps > 1)}"
            )
        per_epoch = updates_per_epoch(examples, _plan_settings(spec, context), parts)
    total = settings.max_steps if settings.max_steps > 0 else math.ceil(settings.num_train_epochs * per_epoch)
    return total, per_epoch


def make_planner(spec: FitSpec, composition: Composition, context: FitContext) -> Planner:
    """The batch plan as a function of the epoch."""
    training, settings = spec.recipe.training, _plan_settings(spec, context)
    lengths = composition.examples.lengths

    def planned(epoch: int) -> list[list[MicroBatches]]:
        rows, steps = composition.rows(epoch), training.gradient_accumulation_steps
        updates = plan(lengths[rows], settings, training.seed, epoch, context.world_size, steps)
        return [[tuple(rows[batch] for batch in batches) for batches in update] for update in updates]

    return planned


def _plan_settings(spec: FitSpec, context: FitContext) -> PlanSettings:
    settings = spec.recipe.training
    workers = context.batches_of or context.world_size
    per_update = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * workers
    by_tokens = settings.batching == "tokens" or (settings.batching == "auto" and spec.task.ragged)
    return PlanSettings(per_update, by_tokens)
