"""Judging the validation split during training, and choosing the best checkpoint by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tunesmith.errors import UserError, nearest
from tunesmith.evaluation.predictor import Predictor
from tunesmith.tasks.base import Example, Features, Metrics
from tunesmith.tasks.metrics import greater_is_better
from tunesmith.training import checkpoint, collective
from tunesmith.training.spec import Examples, FitContext, FitSpec

ROUNDING = 1e-9
"""Gains up to this are no gains: the same right answers, summed in another order."""

REHEARSED = 4
"""Examples of each rank that are judged before training."""


def validate(spec: FitSpec, model: torch.nn.Module, split: Examples, context: FitContext) -> Metrics:
    """The task's metrics on a split, the same on every rank; each rank answers its share of the batches.

    All examples weigh the same and the loss is the plain log loss, whatever ``training.loss``, ``class_weights`` and
    ``sampling`` say: the numbers can be compared between recipes.
    """
    predictor = Predictor(spec.task, model, spec.preprocessing, device=next(model.parameters()).device)
    size = spec.recipe.training.per_device_eval_batch_size
    predictor.batch_size = size or 2 * spec.recipe.training.per_device_train_batch_size
    state = spec.preprocessing.state
    mine = predictor.batches(split.lengths)[context.rank :: context.world_size]
    rows: list[tuple[int, dict[str, Any]]] = []
    for indices, answers in predictor.predict_split(split, mine):
        examples: list[Example] = list(split.examples(indices.tolist()))
        rows += [
            (int(index), spec.task.score(answer, example, state))
            for index, answer, example in zip(indices, answers, examples, strict=True)
        ]
    model.train()
    rows = sorted(collective.gather(rows), key=lambda row: row[0])
    return dict(spec.task.aggregate(pa.Table.from_pylist([record for _, record in rows]), state))


def rehearse(spec: FitSpec, model: torch.nn.Module, split: Examples, context: FitContext) -> None:
    """Judge a few examples before training begins: what would end the first evaluation shows now, not an epoch later.

    Raises:
        UserError: the metric that chooses the checkpoint does not exist.
    """
    few = Few(split, min(REHEARSED * context.world_size, len(split)))
    choosing_value(spec, validate(spec, model, few, context))


@dataclass(frozen=True)
class Few:
    """The first ``n`` examples of a split."""

    split: Examples
    n: int

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What each costs."""
        return self.split.lengths[: self.n]

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """The units of loss of each."""
        return self.split.counts[: self.n]

    def __len__(self) -> int:
        return self.n

    def features(self, indices: Sequence[int]) -> list[Features]:
        """As the split has them."""
        return self.split.features(indices)

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """As the split has them."""
        return self.split.examples(indices)


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
        near = nearest(name, metrics)
        shown = ", ".join(key for key in metrics if "/" not in key)
        raise UserError(
            f"training.metric_for_best_model: the task has no metric {name!r}. "
            + (f"Did you mean {near!r}? " if near else "")
            + f"There are: {shown}"
        )
    return float(metrics[name])


def score(spec: FitSpec, metrics: Mapping[str, float]) -> float:
    """The choosing metric such that more is better; an undefined one is worse than any."""
    value = choosing_value(spec, metrics) * (1 if more_is_better(spec) else -1)
    return float("-inf") if np.isnan(value) else value


def more_is_better(spec: FitSpec) -> bool:
    """Whether more of that metric is better."""
    told = spec.recipe.training.greater_is_better
    return greater_is_better(choosing_metric(spec)) if told is None else told
