"""The loop's own loader: builds the next micro-batches in a thread while the model works on this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

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
    stopped = threading.Event()

    def put(entry: tuple[str, Made | BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(("made", make(item))):
                    return
            put(("end", None))
        except BaseException as error:  # handed to the consumer, whatever it is
            put(("failed", error))

    thread = threading.Thread(target=work, name="tunesmith-loader", daemon=True)
    thread.start()
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
