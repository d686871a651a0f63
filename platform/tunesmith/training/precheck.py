"""What recipe, data and model do not allow together, found on the driver: before Ray starts, and before any worker does.

The model is made from its config alone, on the ``meta`` device, so that a large one costs neither memory nor a download. Of a
task that cannot do that (:class:`tunesmith.tasks.base.Outlines`) the model is checked by the workers only, which check again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa

from tunesmith.data.old import prepare_old
from tunesmith.data.unlabelled import prepare_unlabelled
from tunesmith.errors import UserError
from tunesmith.evaluation.slices import slice_columns
from tunesmith.evaluation.suites.run import check_suites
from tunesmith.tasks.base import Metrics, Outlines, Preprocessing
from tunesmith.tasks.losses import check_criterion
from tunesmith.training.adaptation import adapt
from tunesmith.training.composition import epoch_size
from tunesmith.training.groups import check_groups, groups_of
from tunesmith.training.optim import check_optimization
from tunesmith.training.parameters import layer_groups
from tunesmith.training.sampling import check_sampling
from tunesmith.training.self_training import check_apart
from tunesmith.training.spec import FitContext, FitData, FitSpec
from tunesmith.training.unfreeze import Freezing
from tunesmith.training.updates import count_updates
from tunesmith.training.validation import missing_metric

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.data.ingest import Progress
    from tunesmith.data.old import OldPlaces
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Task


FEW = 4
"""Validation rows that are enough to see which metrics a task reports."""


def check_training(recipe: Recipe, task: Task, prepared: PreparedData, old: OldPlaces) -> None:
    """Refuse what the workers would refuse.

    Raises:
        DataError: weights, groups, sampling or replay that these rows cannot have; too few rows for the workers.
        UserError: a schedule of unfreezing that is longer than the training; an argument of the optimizer or the schedule, or a
            metric that chooses the checkpoint, that does not exist.
        ModelError: layers that cannot be grouped, a head that cannot be told, no module to adapt.
    """
    check_criterion(recipe, prepared.state)
    _check_verdict(recipe, task, prepared)
    _check_metric(recipe, task, prepared)
    train = prepared.splits["train"]
    check_sampling(recipe, task, train, prepared.state, train.domains)
    check_groups(recipe, task, train, prepared.state, groups_of(recipe, train))
    spec = FitSpec(recipe, task, Preprocessing(prepared.state))
    data = FitData(train, replay=old.replay.open() if old.replay is not None else None)
    context = FitContext(world_size=recipe.training.num_workers)
    steps, per_epoch = count_updates(spec, epoch_size(data, recipe.training.replay.share), context)
    check_optimization(recipe.training, steps)
    check_model(spec, steps, per_epoch)


def reported(task: Task, prepared: PreparedData) -> Metrics | None:
    """The metrics of a few validation rows, answered without a model; None where the task cannot (tags), or there are none."""
    split = prepared.splits.get("validation")
    examples = list(split.examples(range(min(FEW, len(split))))) if split is not None else []
    answer = task.majority(examples, prepared.state) if examples else None
    if answer is None:
        return None
    records = pa.Table.from_pylist([task.score(answer, example, prepared.state) for example in examples])
    return task.aggregate(records, prepared.state)


def _check_metric(recipe: Recipe, task: Task, prepared: PreparedData) -> None:
    """Refuse a metric that chooses the checkpoint and is none of the task's."""
    name = recipe.training.metric_for_best_model
    found = reported(task, prepared) if name is not None and recipe.training.eval_strategy != "no" else None
    if name is not None and found is not None and name not in found:
        raise UserError(missing_metric("training.metric_for_best_model", name, found))


def _check_verdict(recipe: Recipe, task: Task, prepared: PreparedData) -> None:
    """Refuse slices and suites that the split to be judged cannot have: after the training would be late."""
    judged = next((prepared.splits[name] for name in ("test", "validation") if len(prepared.splits.get(name, ()))), None)
    if judged is None:
        return
    settings = recipe.evaluation
    slice_columns(judged.rows(), settings.slices)
    check_suites(judged, task, prepared.state, settings, (recipe.base_dir, os.getcwd()))


def check_prepared(recipe: Recipe, task: Task, prepared: PreparedData, tell: Progress | None = None) -> None:
    """Refuse what training would refuse of all its data, old and unlabelled rows too. Raises as :func:`check_training`."""
    old = prepare_old(recipe, task, prepared, tell)
    check_training(recipe, task, prepared, old)
    unlabelled = prepare_unlabelled(recipe, task, prepared, tell)
    if unlabelled is not None:
        check_apart(task, unlabelled, old)


def check_model(spec: FitSpec, steps: int, per_epoch: int) -> None:
    """Adapters, frozen layers and layer groups, on the model without its weights; nothing where all is trained at one rate."""
    settings, task = spec.recipe.training, spec.task
    plain = settings.adaptation == "full" and not settings.unfreeze.on and settings.layerwise_lr_decay == 1
    if plain or not isinstance(task, Outlines):
        return
    model = task.outline(spec.recipe, spec.preprocessing.state)
    adapt(model, spec.recipe)
    Freezing(model, settings, steps, per_epoch)
    if settings.layerwise_lr_decay != 1:
        layer_groups(model)
