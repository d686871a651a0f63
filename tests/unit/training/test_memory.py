"""Out of memory: the user is told the batch that fits, and how to ask for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from support.data import texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.errors import UserError
from tunesmith.evaluation.predictor import is_out_of_memory
from tunesmith.tasks.base import Batch
from tunesmith.tasks.losses import Criterion
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.training.fit import FitContext, fit

pytestmark = pytest.mark.unit


class Hungry(TextClassification):
    """Text classification on a device that holds so many examples and no more."""

    def __init__(
        self, holds: int, error: type[Exception] = torch.OutOfMemoryError, message: str = "CUDA out of memory"
    ) -> None:
        self.holds, self.error, self.message = holds, error, message

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        if len(batch["input_ids"]) > self.holds:
            raise self.error(self.message)
        return super().loss(model, batch, criterion)


def run(folder: Path, task: TextClassification, **training: Any) -> None:
    recipe = recipe_for(
        "text-classification",
        tiny_bert(folder / "base"),
        folder / "a",
        batching="fixed",
        max_steps=1,
        eval_strategy="no",
        load_best_model_at_end=False,
        **training,
    )
    spec, data = prepare_in_memory(recipe, texts(64))
    fit(dataclasses.replace(spec, task=task), data, FitContext())


def test_the_message_names_the_batch_that_fits_and_the_override(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, Hungry(5), per_device_train_batch_size=16)
    message = str(caught.value)
    assert "micro-batch of 16 examples" in message
    assert "4 of them fit" in message
    assert "training.per_device_train_batch_size=4 training.gradient_accumulation_steps=4" in message
    run(tmp_path, Hungry(5), per_device_train_batch_size=4, gradient_accumulation_steps=4)


def test_accumulation_that_is_there_already_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"per_device_train_batch_size=2 training.gradient_accumulation_steps=8"):
        run(tmp_path, Hungry(3), per_device_train_batch_size=8, gradient_accumulation_steps=2)


def test_where_not_one_example_fits_other_ways_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Not even one fits: shorten data.max_length"):
        run(tmp_path, Hungry(0), per_device_train_batch_size=8)


def test_the_allocator_of_a_cpu_counts_too(tmp_path: Path) -> None:
    said = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    with pytest.raises(UserError, match="2 of them fit"):
        run(tmp_path, Hungry(2, RuntimeError, said), per_device_train_batch_size=8)
    with pytest.raises(UserError, match="2 of them fit"):
        run(tmp_path, Hungry(2, MemoryError, ""), per_device_train_batch_size=8)


def test_any_other_error_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(tmp_path, Hungry(2, RuntimeError, "shapes do not match"), per_device_train_batch_size=8)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
