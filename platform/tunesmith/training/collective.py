"""The few exchanges between ranks that the loop needs; each does nothing where there is one rank."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


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


def gather_on_first(rows: list[Any]) -> list[Any] | None:
    """The rows of all ranks, in the order of the ranks, on rank 0; None on the others."""
    if not together():
        return rows
    first = dist.get_rank() == 0
    parts: list[list[Any]] | None = [[] for _ in range(dist.get_world_size())] if first else None
    dist.gather_object(rows, parts)
    return None if parts is None else [row for part in parts for row in part]


def from_first(make: Callable[[], T]) -> T:
    """What rank 0 makes, on every rank; what it raises there too, so that no rank waits for a value that does not come."""
    if not together():
        return make()
    made: list[Any] = [None, None]
    failed: Exception | None = None
    if dist.get_rank() == 0:
        try:
            made[0] = make()
        except Exception as error:  # raised below, on every rank
            failed, made[1] = error, _sent(error)
    dist.broadcast_object_list(made)
    if failed is not None:
        raise failed
    if made[1] is not None:
        raise made[1]
    return made[0]  # type: ignore[no-any-return]  # what make() gave


def _sent(error: Exception) -> Exception:
    """The error as other ranks can raise it: itself, or its words where it does not pass between processes."""
    try:
        pickle.dumps(copy.copy(error))  # a copy is made as the other rank makes it
    except Exception:  # the error's own code runs
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def dealt(batches: Sequence[T], rank: int, world_size: int) -> tuple[list[T], int]:
    """A rank's share of the batches, and how many of them count.

    Every rank gets as many: of a sharded model each forward pass is a collective. Where they do not come out even, the last
    batch is repeated, and does not count.

    >>> dealt("abc", rank=0, world_size=2), dealt("abc", rank=1, world_size=2)
    ((['a', 'c'], 2), (['b', 'c'], 1))
    """
    mine = list(batches[rank::world_size])
    passes = -(-len(batches) // world_size)
    return mine + list(batches[-1:]) * (passes - len(mine)), len(mine)


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
