"""The few exchanges between ranks that the loop needs; each does nothing where there is one rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


def together() -> bool:
    """Whether there is more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value summed over all ranks, in float64 (float32 on devices that have no float64)."""
    if not together():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def gather(rows: list[Any]) -> list[Any]:
    """The rows of all ranks, in the order of the ranks, on every rank."""
    if not together():
        return rows
    parts: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def same_buffers(model: torch.nn.Module) -> None:
    """Give every rank the buffers of rank 0 (running statistics of batch norm), so that all judge and save one model."""
    if together():
        for buffer in model.buffers():
            if buffer.is_floating_point() and not hasattr(buffer, "device_mesh"):
                dist.broadcast(buffer, 0)


def leave_buffers(model: torch.nn.Module) -> None:
    """Keep DDP from sending rank 0's buffers before every forward pass.

    In training they are only written; :func:`same_buffers` sends them where they are read. A small network ran a fifth slower.
    """
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model.broadcast_buffers = False
