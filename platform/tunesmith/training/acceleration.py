"""Accelerate, set up for what a recipe asks and the machine has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.errors import UserError
from tunesmith.recipe.training import TrainingSection

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(settings: TrainingSection) -> Accelerator:
    """Devices, mixed precision and sharding; joins the process group that Ray Train made, where there is one.

    Raises:
        UserError: float16 or sharding without a GPU.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    on_gpu = torch.cuda.is_available() and settings.use_gpu is not False
    if settings.fp16 and not on_gpu:
        raise UserError(
            "training.fp16: float16 needs a GPU, and this worker has none\n    → Use training.bf16: true, or leave both out"
        )
    if settings.fsdp and not on_gpu:
        raise UserError("training.fsdp: sharding needs GPUs, and this worker has none\n    → Leave training.fsdp out")
    # The state is a singleton: a second fit in this process may want another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Gradients live in DDP's own buckets, which saves a copy of them.
    plugins: dict[str, Any] = {"kwargs_handlers": [DistributedDataParallelKwargs(gradient_as_bucket_view=True)]}
    if settings.fsdp:
        from accelerate.utils import FullyShardedDataParallelPlugin

        plugins["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2, state_dict_type="FULL_STATE_DICT", auto_wrap_policy="transformer_based_wrap"
        )
    return Accelerator(cpu=not on_gpu, mixed_precision=precision(settings, on_gpu), **plugins)


def precision(settings: TrainingSection, on_gpu: bool) -> str:
    """Accelerate's name of the autocast type: ``bf16``, ``fp16`` or ``no``."""
    if settings.fp16:
        return "fp16"
    bf16 = settings.bf16
    if bf16 == "auto":
        bf16 = on_gpu and torch.cuda.is_bf16_supported()
    return "bf16" if bf16 else "no"


def emulated(accelerator: Accelerator) -> str | None:
    """What to tell the user of a precision that this machine can only emulate, or None."""
    if accelerator.mixed_precision != "bf16" or accelerator.device.type != "cpu":
        return None
    if torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return (
        "This CPU has no bfloat16 instructions (AVX-512 or AMX): training in bf16 is many times slower here. "
        "Leave training.bf16 out"
    )


def use_cores(workers_here: int, demanded: float | None) -> int:
    """Set PyTorch's threads: the CPUs demanded for each worker, else an equal share of this machine's; returns the number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, int(demanded) if demanded else cores // max(1, workers_here))
    torch.set_num_threads(threads)
    return threads
