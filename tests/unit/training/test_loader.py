"""The loader: in order, ahead but not far, and gone with its consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from tunesmith.training.loader import prefetch

pytestmark = pytest.mark.unit


def until(done: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
    return done()


def alive() -> bool:
    return any(thread.name == "tunesmith-loader" for thread in threading.enumerate())


def test_items_come_in_order_from_another_thread() -> None:
    made = list(prefetch(lambda i: (i, threading.current_thread().name), range(50)))
    assert [i for i, _ in made] == list(range(50))
    assert {name for _, name in made} == {"tunesmith-loader"}
    assert list(prefetch(str, [])) == []


def test_no_more_than_a_few_are_made_ahead() -> None:
    made: list[int] = []

    def make(i: int) -> int:
        made.append(i)
        return i

    items = prefetch(make, range(100), ahead=3)
    assert next(items) == 0
    assert until(lambda: len(made) >= 5)
    time.sleep(0.2)
    assert len(made) == 5, "one used, three waiting, one in hand"
    items.close()  # type: ignore[attr-defined]


def test_an_error_comes_out_where_the_item_would() -> None:
    def make(i: int) -> int:
        if i == 3:
            raise OSError("the disk is gone")
        return i

    items = prefetch(make, range(10))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert until(lambda: not alive())


def test_the_thread_computes_on_one_core_and_the_model_on_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(prefetch(lambda _: torch.get_num_threads(), range(3))) == [1, 1, 1]
        assert torch.get_num_threads() == 2
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join(5)
        assert later == [2], "threads that begin later are not held to one core"
    finally:
        torch.set_num_threads(before)


def test_the_thread_ends_with_its_consumer() -> None:
    items = prefetch(lambda i: i, iter(range(1000)), ahead=1)
    next(items)
    assert alive()
    items.close()  # type: ignore[attr-defined]
    assert until(lambda: not alive())
