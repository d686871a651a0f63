"""The threads that compute a model's passes, and how many of PyTorch's own threads each has for them.

Two things decide it, both measured on two cores with a BERT of 6 layers, 384 wide (``docs/log.md``):

- Each thread that computes with PyTorch has an OpenMP team of its own. With two teams of several threads libgomp counts more
  threads than cores, and lets those of every pass sleep at each barrier instead of waiting awake: a pass of one text then takes
  15 ms instead of 7.6, though the other team is idle. So only the first lane is ever wide, and it does all that PyTorch
  computes in the process, from the model's loading on.
- In a pass over several cores each waits for the others at every barrier, so that whoever else needs one of the cores for a
  moment (HAProxy, the door, the client) stops them all. Under load each lane therefore computes a pass of its own on few cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 4
"""Lanes of one model: more would cut the waiting requests into passes too small to be worth it."""


@dataclass(frozen=True)
class Lane:
    """One thread that computes passes, beside others."""

    executor: Executor
    """Its thread."""
    width: int = 1
    """Threads of PyTorch while other lanes compute too."""
    widest: int = 1
    """Threads of PyTorch while no other lane does; more than ``width`` in the first lane alone."""


def first_thread() -> ThreadPoolExecutor:
    """The thread of the first lane, before anything is computed."""
    return ThreadPoolExecutor(1, "model-0")


def lanes(first: Executor, threads: int, *, several: bool = True) -> list[Lane]:
    """The lanes of a model that has ``threads`` cores: several narrow ones, of which the first can be wide.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> [(lane.width, lane.widest) for lane in lanes(ThreadPoolExecutor(1), 2)]
    [(1, 2), (1, 1)]
    >>> [(lane.width, lane.widest) for lane in lanes(ThreadPoolExecutor(1), 8, several=False)]
    [(8, 8)]
    >>> [(lane.width, lane.widest) for lane in lanes(ThreadPoolExecutor(1), 6)]
    [(2, 6), (2, 2), (1, 1), (1, 1)]
    """
    count = min(MOST, threads) if several else 1
    widths = [threads // count + (place < threads % count) for place in range(count)]
    others = [Lane(ThreadPoolExecutor(1, f"model-{place}"), width, width) for place, width in enumerate(widths[1:], 1)]
    return [Lane(first, widths[0], threads), *others]


def with_threads(threads: int, function: Callable[[Sequence[Item]], Result], batch: Sequence[Item]) -> Result:
    """``function(batch)`` with so many threads of PyTorch in the calling thread."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return function(batch)


def take_one_core() -> None:
    """Let this thread, which computes no passes, compute alone."""
    torch.get_num_threads()  # a thread's first question takes over the process's default, which would undo the next line
    torch.set_num_threads(1)
