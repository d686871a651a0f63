"""The memory that training takes; where it is too much, find the batch that would have fitted, and say so."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from tunesmith.errors import UserError
from tunesmith.evaluation.predictor import is_out_of_memory, to_device

if TYPE_CHECKING:
    from tunesmith.tasks.base import Batch
    from tunesmith.training.spec import FitSpec, Trainee


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: tensors on a GPU, everything on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts KiB


@contextmanager
def explaining_memory(spec: FitSpec, trainee: Trainee, batch: Batch) -> Iterator[None]:
    """Turn an out-of-memory error into a :class:`UserError` that names the largest part of the batch that fits."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        error.__traceback__ = None  # it holds the tensors that fill the memory
        message = (str(error) or type(error).__name__).splitlines()[0]  # Python's own MemoryError says nothing
    else:
        return
    raise UserError(_advice(spec, trainee, batch, message))


def _advice(spec: FitSpec, trainee: Trainee, batch: Batch, message: str) -> str:
    size = len(next(iter(batch.values())))
    shape = " × ".join(str(n) for n in next(iter(batch.values())).shape)
    settings = spec.recipe.training
    fits = _largest_that_fits(spec, trainee, batch, size)
    if fits == 0:
        return (
            f"out of memory with one example of the batch of shape {shape} ({message})\n"
            "    → Not even one fits: shorten data.max_length or data.image_size, set training.gradient_checkpointing: true, "
            "or take a smaller model"
        )
    per_device = max(1, settings.per_device_train_batch_size * fits // size)
    steps = -(-settings.per_device_train_batch_size * settings.gradient_accumulation_steps // per_device)
    return (
        f"out of memory with a micro-batch of {size} examples, shape {shape} ({message})\n"
        f"    → {fits} of them fit{'s' * (fits == 1)}: set training.per_device_train_batch_size={per_device} "
        f"training.gradient_accumulation_steps={steps} (the same update)"
    )


def _largest_that_fits(spec: FitSpec, trainee: Trainee, batch: Batch, size: int) -> int:
    """Halve the batch until forward and backward pass; 0 where one example alone does not fit."""
    model = trainee.accelerator.unwrap_model(trainee.model)
    while size > 1:
        size //= 2
        trainee.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        part = {name: value[:size] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        try:
            loss, _ = spec.task.loss(model, to_device(part, trainee.accelerator.device), trainee.criterion)
            torch.autograd.backward(loss)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            continue
        return size
    return 0
