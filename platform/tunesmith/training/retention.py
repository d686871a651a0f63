"""Watches what the model knew before, while it learns: judged before the first update and at every evaluation.

Sets that the base's own head can answer are scored with the task's metrics; of others, and of those without targets, the drift
of the trunk's representation is measured (:mod:`tunesmith.evaluation.drift`). Every rank sees the same numbers, so all of them
stop, or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.evaluation import drift
from tunesmith.evaluation.retention import ROUNDING, sample
from tunesmith.tasks.base import Metrics
from tunesmith.training import collective
from tunesmith.training.spec import FitContext, FitSpec, OldData
from tunesmith.training.splits import chosen
from tunesmith.training.validation import choosing_metric, choosing_value, more_is_better, predictor_for, validate

DROP, CKA = "drop", "cka"
"""What every judgement holds beside the metrics: how much was lost since before training, and the similarity of drift."""


class Watch:
    """The retention sets with what the base model made of them."""

    def __init__(self, spec: FitSpec, context: FitContext, sets: Mapping[str, OldData], base: torch.nn.Module) -> None:
        """Judge the model that still has the base's weights; every rank calls."""
        self._spec, self._context = spec, context
        self._by = {name: one.by for name, one in sets.items()}
        most, seed = spec.recipe.evaluation.retention.max_samples, spec.recipe.evaluation.seed
        self._samples = {name: chosen(one.split, sample(len(one.split), most, seed)) for name, one in sets.items()}
        self._states: dict[str, npt.NDArray[np.float64]] = {}
        self.before: dict[str, Metrics] = {}
        """What the base scored, by set."""
        with _as_it_was(base):
            for name, by in self._by.items():
                if by == "drift":
                    self._states[name] = self._hidden(name, base)
                    self.before[name] = {CKA: 1.0, DROP: 0.0}
                else:
                    self.before[name] = {**validate(spec, base, self._samples[name], context), DROP: 0.0}

    def judge(self, model: torch.nn.Module) -> dict[str, Metrics]:
        """The sets' metrics now, each with ``drop``; every rank calls and gets the same."""
        found: dict[str, Metrics] = {}
        for name, by in self._by.items():
            if by == "drift":
                cka = drift.linear_cka(self._states[name], self._hidden(name, model))
                found[name] = {CKA: cka, DROP: 1 - cka}
            else:
                now = validate(self._spec, model, self._samples[name], self._context)
                found[name] = {**now, DROP: self._drop(self.before[name], now)}
        return found

    def beyond(self, found: Mapping[str, Metrics]) -> tuple[float, str]:
        """How far the set that lost most lies beyond the ceiling, and that in a sentence; 0 where none does."""
        ceiling = self._spec.recipe.evaluation.retention.max_drop
        if ceiling is None or not found:
            return 0.0, ""
        name, drop = worst(found)
        if drop <= ceiling + ROUNDING:
            return 0.0, ""
        what = "1 - CKA" if self._by[name] == "drift" else choosing_metric(self._spec)
        return (
            drop - ceiling,
            f"retention/{name} is {drop:.4g} worse in {what} than before training, the ceiling is {ceiling:g}",
        )

    def _drop(self, before: Metrics, now: Metrics) -> float:
        lost = choosing_value(self._spec, before) - choosing_value(self._spec, now)
        return lost if more_is_better(self._spec) else -lost

    def _hidden(self, name: str, model: torch.nn.Module) -> npt.NDArray[np.float64]:
        """The trunk's states of a set ``[n, width]``, on every rank; each rank computes its share of the batches."""
        sample, context = self._samples[name], self._context
        predictor = predictor_for(self._spec, model)
        first = sample.examples([0])[0]
        rows: list[tuple[int, npt.NDArray[np.float64]]] = []
        mine, counted = collective.dealt(predictor.batches(sample.lengths), context.rank, context.world_size)
        for number, indices in enumerate(mine):
            features = drift.bare(predictor, first, sample.features(indices.tolist()))
            states = drift.hidden_states(predictor, features)
            if number < counted:
                rows += [(int(index), state) for index, state in zip(indices, states, strict=True)]
        model.train()
        return np.stack([state for _, state in sorted(collective.gather(rows), key=lambda row: row[0])])


def worst(found: Mapping[str, Metrics]) -> tuple[str, float]:
    """The set that lost most, and how much; what is not a number has lost everything."""
    drops = {name: math.inf if math.isnan(one[DROP]) else one[DROP] for name, one in found.items()}
    name = max(drops, key=lambda each: drops[each])
    return name, drops[name]


@contextmanager
def _as_it_was(model: torch.nn.Module) -> Iterator[None]:
    """Leaves the model in the mode it was in."""
    training = model.training
    try:
        yield
    finally:
        model.train(training)
