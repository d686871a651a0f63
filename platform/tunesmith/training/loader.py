"""The loop's own loader: builds the next micro-batches in a thread while the model works on this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD = 4
"""Micro-batches built ahead: enough to hide a slow one, few enough not to matter in memory."""


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], ahead: int = AHEAD) -> Iterator[Made]:
    """``make(item)`` for each item in order, made ahead in one thread. What ``make`` raises is raised here.

    >>> list(prefetch(str, [1, 2]))
    ['1', '2']
    """
    ready: queue.Queue[tuple[str, Made | BaseException | None]] = queue.Queue(maxsize=ahead)
    stopped, settled = threading.Event(), threading.Event()

    def put(entry: tuple[str, Made | BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        _take_one_core()
        settled.set()
        try:
            for item in items:
                if not put(("made", make(item))):
                    return
            put(("end", None))
        except BaseException as error:  # handed to the consumer, whatever it is
            put(("failed", error))

    thread = threading.Thread(target=work, name="tunesmith-loader", daemon=True)
    threads = torch.get_num_threads()
    thread.start()
    settled.wait()
    torch.set_num_threads(threads)  # the number is each thread's own, but the last one set is what later threads begin with
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if isinstance(value, BaseException):
                raise value
            yield value  # type: ignore[misc]  # kind "made" carries a Made
    finally:
        stopped.set()
        thread.join(timeout=10)


def _take_one_core() -> None:
    """Let this thread compute alone.

    A second team of OpenMP threads beside the model's makes more threads than cores, and then libgomp puts both teams to sleep
    at every barrier instead of letting them spin: measured, a ViT trained a fifth slower although its images took 0.05 s.
    """
    torch.get_num_threads()  # a thread's first question takes over the process's default, which would undo the next line
    torch.set_num_threads(1)
