"""Judging the validation split during training, and choosing the best checkpoint by it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tunesmith.errors import UserError, nearest
from tunesmith.evaluation.predictor import Predictor
from tunesmith.tasks.base import Metrics
from tunesmith.tasks.metrics import greater_is_better
from tunesmith.training import checkpoint, collective
from tunesmith.training.optim import on_plateau
from tunesmith.training.spec import Event, Examples, FitContext, FitData, FitSpec, Tally, Trainee
from tunesmith.training.splits import chosen

ROUNDING = 1e-9
"""Gains up to this are no gains: the same right answers, summed in another order."""

EXCLUDED = 1e12
"""Below minus this are the scores of checkpoints beyond the retention ceiling: no metric is as bad."""

REHEARSED = 4
"""Examples of each rank that are judged before training."""


def validate(spec: FitSpec, model: torch.nn.Module, split: Examples, context: FitContext) -> Metrics:
    """The task's metrics on a split, the same on every rank; each rank answers its share of the batches.

    All examples weigh the same and the loss is the plain log loss, whatever ``training.loss``, ``class_weights`` and
    ``sampling`` say: the numbers can be compared between recipes.
    """
    records = answered(spec, model, split, context)
    return collective.from_first(lambda: dict(spec.task.aggregate(records, spec.preprocessing.state)))


def answered(spec: FitSpec, model: torch.nn.Module, split: Examples, context: FitContext) -> pa.Table | None:
    """The record of each example of a split, in order, on rank 0; None on the others. As Python objects a batch at a time."""
    predictor = predictor_for(spec, model)
    state = spec.preprocessing.state
    mine, counted = collective.dealt(predictor.batches(split.lengths), context.rank, context.world_size)
    blocks: list[tuple[npt.NDArray[np.int64], pa.Table]] = []
    for indices, answers in predictor.predict_split(split, mine):
        if len(blocks) < counted:
            examples = split.examples(indices.tolist())
            records = [spec.task.score(answer, one, state) for answer, one in zip(answers, examples, strict=True)]
            blocks.append((indices, pa.Table.from_pylist(records)))
    model.train()
    every = collective.gather_on_first(blocks)
    if every is None:
        return None
    order = np.argsort(np.concatenate([indices for indices, _ in every]))
    return pa.concat_tables([table for _, table in every], promote_options="permissive").take(pa.array(order))


def judge(
    spec: FitSpec,
    data: FitData,
    context: FitContext,
    trainee: Trainee,
    place: checkpoint.Place,
    epoch: float,
    tell: Callable[[Event], None],
) -> tuple[Metrics, float]:
    """The metrics on the validation split, and how far the model is beyond the retention ceiling (0 within it)."""
    assert data.validation is not None
    model, excess, why = trainee.accelerator.unwrap_model(trainee.model), 0.0, ""
    metrics = validate(spec, model, data.validation, context)
    value = choosing_value(spec, metrics)
    if trainee.watch is not None:
        retained = trainee.watch.judge(model)
        excess, why = trainee.watch.beyond(retained)
        tell_retained(retained, place, epoch, tell)
    remember(spec, place, float("nan") if excess else value)
    if excess and not spec.recipe.evaluation.retention.choose:
        place.stopped_early, place.stopped_by = True, why
    if on_plateau(trainee.schedule):
        trainee.schedule.step(value)
    loss, units = collective.sum_over_ranks(
        [float(trainee.window.loss), float(trainee.window.units)], trainee.accelerator.device
    )
    trainee.window = Tally()
    place.window_loss = place.window_units = 0.0
    gap = {"gap": metrics["loss"] - loss / units} if units and "loss" in metrics else {}
    told = {"kind": "eval", "split": "validation", "step": place.step, "epoch": epoch, **metrics, **gap}
    tell({**told, "best_step": place.best_step})
    return metrics, excess


def tell_retained(found: Mapping[str, Metrics], place: checkpoint.Place, epoch: float, tell: Callable[[Event], None]) -> None:
    """One line for each retention set."""
    for name, metrics in found.items():
        tell({"kind": "retention", "split": f"retention/{name}", "step": place.step, "epoch": epoch, **metrics})


def predictor_for(spec: FitSpec, model: torch.nn.Module) -> Predictor:
    """The model as a predictor, where it is, with the recipe's evaluation batches; padded, as those of training are."""
    settings = spec.recipe.training
    size = settings.per_device_eval_batch_size or 2 * settings.per_device_train_batch_size
    device = next(model.parameters()).device
    return Predictor(spec.task, model, spec.preprocessing, device=device, batch_size=size, padding_is_harmless=True)


def rehearse(spec: FitSpec, model: torch.nn.Module, split: Examples, context: FitContext) -> None:
    """Judge a few examples before training begins: what would end the first evaluation shows now, not an epoch later.

    Raises:
        UserError: the metric that chooses the checkpoint does not exist.
    """
    few = chosen(split, np.arange(min(REHEARSED * context.world_size, len(split))))
    choosing_value(spec, validate(spec, model, few, context))


def remember(spec: FitSpec, place: checkpoint.Place, value: float) -> None:
    """Keep the best value in the place, and stop when patience has run out."""
    settings = spec.recipe.training
    if np.isnan(value):
        value = float("-inf") if more_is_better(spec) else float("inf")
    gain = 0.0 if place.best is None else (value - place.best) * (1 if more_is_better(spec) else -1)
    if place.best is None or gain > settings.early_stopping_threshold + ROUNDING:
        place.best, place.best_step, place.waited = value, place.step, 0
        return
    place.waited += 1
    place.stopped_early = settings.early_stopping_patience is not None and place.waited >= settings.early_stopping_patience


def choosing_metric(spec: FitSpec) -> str:
    """The metric that chooses the checkpoint."""
    return spec.recipe.training.metric_for_best_model or spec.task.metric


def choosing_value(spec: FitSpec, metrics: Mapping[str, float]) -> float:
    """The value of the metric that chooses the checkpoint. Raises :class:`UserError` where the task has no such metric."""
    name = choosing_metric(spec)
    if name not in metrics:
        raise UserError(missing_metric("training.metric_for_best_model", name, metrics))
    return float(metrics[name])


def missing_metric(key: str, name: str, metrics: Collection[str]) -> str:
    """That the task has no metric of this name, which stands at ``key`` of the recipe, and which it has.

    >>> print(missing_metric("search.metric", "acuracy", ["loss", "accuracy", "f1/cat"]))
    search.metric: the task has no metric 'acuracy'
        → Did you mean 'accuracy'? There are: loss, accuracy
    """
    near = nearest(name, metrics)
    shown = ", ".join(one for one in metrics if "/" not in one)
    return f"{key}: the task has no metric {name!r}\n    → {f'Did you mean {near!r}? ' if near else ''}There are: {shown}"


def score(spec: FitSpec, metrics: Mapping[str, float], excess: float = 0.0) -> float:
    """The choosing metric such that more is better; an undefined one is worse than any.

    ``excess`` is how far beyond the retention ceiling the model is: any such model is worse than all within it, the more so
    the further it is.
    """
    if excess > 0:
        return -EXCLUDED * (1 + min(excess, 1e6))
    value = choosing_value(spec, metrics) * (1 if more_is_better(spec) else -1)
    return float("-inf") if np.isnan(value) else value


def more_is_better(spec: FitSpec) -> bool:
    """Whether more of that metric is better."""
    told = spec.recipe.training.greater_is_better
    return greater_is_better(choosing_metric(spec)) if told is None else told
