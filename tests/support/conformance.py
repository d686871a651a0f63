"""A case of the conformance suite with its data prepared, and what else its tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from support.cases import Case
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.evaluation.predictor import Predictor
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Batch, Preprocessing, Task
from tunesmith.training.fit import FitData, FitResult, FitSpec, fit


@dataclass(frozen=True)
class Made:
    """A case whose data is prepared; whatever else it needs is made when it is first asked for."""

    case: Case
    recipe: Recipe
    task: Task
    data: PreparedData
    folder: Path

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.data.state, self.task.load_processor(self.recipe))

    @property
    def train(self) -> Split:
        return self.data.splits["train"]

    @property
    def test(self) -> Split:
        return self.data.splits["test"]

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        return self.test.examples()

    @cached_property
    def fitted(self) -> FitResult:
        spec = FitSpec(self.recipe.override("training.num_train_epochs=6"), self.task, self.preprocessing)
        return fit(spec, FitData(self.train))

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.task, self.fitted.model, self.preprocessing, device="cpu")

    def fresh(self) -> torch.nn.Module:
        torch.manual_seed(1)
        return self.task.build_model(self.recipe, self.data.state).eval()

    def batch(self, indices: Sequence[int]) -> Batch:
        return self.task.collate(self.train.features(indices), self.preprocessing)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        answers = dict(
            pair for indices, said in self.predictor.predict_split(self.test) for pair in zip(indices, said, strict=True)
        )
        return [self.task.score(answers[i], example, self.data.state) for i, example in enumerate(self.examples)]

    @cached_property
    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.records)


def close(one: Any, other: Any, tolerance: float = 1e-4) -> None:
    """Answers that say the same: text equal, numbers within the tolerance."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            close(value, other[key], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            close(mine, theirs, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance, rel=tolerance, nan_ok=True)
    else:
        assert one == other


def inputs_only(task: Task, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{role: value for role, value in example.items() if role != task.target} for example in examples]
