"""Batches: everybody answered once, similar lengths together, within the budget, nobody for ever, nobody for the dead."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tunesmith.tasks.base import Answer, Features
from tunesmith_serving.batcher import Batcher, Limits
from tunesmith_serving.lanes import Lane, first_thread, lanes

pytestmark = pytest.mark.unit


def feature(length: int, name: Any = None) -> Features:
    return Features({"name": length if name is None else name}, length=length)


class Model:
    """Answers with each example's name, keeps the batches it saw, and can be held up."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, batch: Sequence[Features]) -> list[Answer]:
        self.seen.append([one.length for one in batch])
        assert self.free.wait(10)
        if any(one.values["name"] == -1 for one in batch):
            raise ValueError("poison")
        return [{"name": one.values["name"]} for one in batch]


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def crowd(batcher: Batcher, model: Model, lengths: Sequence[int]) -> list[Any]:
    """Requests that all arrive while the model is busy with a first one."""
    model.free.clear()
    first = asyncio.create_task(batcher.answer([feature(1)]))
    while not model.seen:
        await asyncio.sleep(0.001)
    tasks = [asyncio.create_task(batcher.answer([feature(length, i)])) for i, length in enumerate(lengths)]
    await asyncio.sleep(0)
    model.free.set()
    answers = await asyncio.gather(first, *tasks)
    await batcher.close()
    return answers[1:]


def test_those_that_wait_share_passes_of_similar_length_within_the_budget(thread: ThreadPoolExecutor) -> None:
    model, lengths = Model(), [5, 40, 7, 38, 6, 39, 100]
    batcher = Batcher(model, Limits(budget=80, most=8, beside=5), [Lane(thread)])
    answers = asyncio.run(crowd(batcher, model, lengths))
    assert [found[0]["name"] for found, _ in answers] == list(range(len(lengths)))
    assert sorted(length for batch in model.seen[1:] for length in batch) == sorted(lengths)
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 80 for batch in model.seen)
    assert model.seen[1] == [7, 6, 5]  # the batch that the oldest is in comes first
    assert len(model.seen) - 1 < len(lengths)


def test_only_equal_lengths_share_a_pass_where_padding_matters(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, Limits(budget=1000, most=8, equal_lengths=True), [Lane(thread)])
    asyncio.run(crowd(batcher, model, [5, 6, 5, 7, 6, 5]))
    assert sorted(model.seen[1:]) == [[5, 5, 5], [6, 6], [7]]


def test_the_oldest_is_never_passed_over(thread: ThreadPoolExecutor) -> None:
    """A stream of short texts must not keep a long one waiting."""
    model = Model()
    batcher = Batcher(model, Limits(budget=100, most=4), [Lane(thread)])
    asyncio.run(crowd(batcher, model, [90, *[5] * 40]))
    assert model.seen[1] == [90]


def test_a_pass_is_planned_over_the_oldest_alone(thread: ThreadPoolExecutor) -> None:
    """However many wait: planning all of them anew before each pass would take longer the more there are."""
    model, oldest = Model(), 8 * 4
    batcher = Batcher(model, Limits(budget=1000, most=4), [Lane(thread)])
    asyncio.run(crowd(batcher, model, [10, *[50] * (oldest - 1), *[10] * 40]))
    assert model.seen[1] == [10], "the others of that length are not among the oldest"


def test_one_request_of_many_examples_is_answered_in_order(thread: ThreadPoolExecutor) -> None:
    async def ask() -> tuple[list[Answer], list[Any]]:
        batcher = Batcher(Model(), Limits(budget=30, most=4), [Lane(thread)])
        found = await batcher.answer([feature(n % 9 + 1, n) for n in range(25)])
        await batcher.close()
        return found

    answers, passes = asyncio.run(ask())
    assert [answer["name"] for answer in answers] == list(range(25))
    assert sum(one.size for one in passes) == 25


def test_a_bad_example_fails_alone(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, Limits(budget=1000, most=8), [Lane(thread)])

    async def ask() -> list[Any]:
        model.free.clear()
        first = asyncio.create_task(batcher.answer([feature(1)]))
        while not model.seen:
            await asyncio.sleep(0.001)
        tasks = [asyncio.create_task(batcher.answer([feature(3, name)])) for name in (0, -1, 2)]
        await asyncio.sleep(0)
        model.free.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await first
        await batcher.close()
        return found

    good, bad, fine = asyncio.run(ask())
    assert (good[0], fine[0]) == ([{"name": 0}], [{"name": 2}])
    assert isinstance(bad, ValueError)


def test_what_nobody_waits_for_is_not_computed(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, Limits(budget=1000, most=1), [Lane(thread)])

    async def ask() -> None:
        model.free.clear()
        first = asyncio.create_task(batcher.answer([feature(1)]))
        while not model.seen:
            await asyncio.sleep(0.001)
        late = asyncio.create_task(batcher.answer([feature(2)], timeout=0.01))
        gone = asyncio.create_task(batcher.answer([feature(3)]))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(TimeoutError):
            await late
        model.free.set()
        await first
        await batcher.answer([feature(4)])
        await batcher.close()

    asyncio.run(ask())
    assert model.seen == [[1], [4]]


def test_a_lone_client_never_waits_and_a_crowd_waits_no_longer_than_told(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, Limits(budget=1000, most=8, wait=0.2), [Lane(thread)])

    async def ask() -> tuple[float, float]:
        start = time.monotonic()
        for _ in range(3):
            await batcher.answer([feature(2)])
        alone = time.monotonic() - start
        batcher._company = True  # the last pass was shared
        start = time.monotonic()
        await batcher.answer([feature(2)])
        crowded = time.monotonic() - start
        await batcher.close()
        return alone, crowded

    alone, crowded = asyncio.run(ask())
    assert alone < 0.2
    assert 0.15 < crowded < 1.0


def test_without_padding_passes_are_filled_in_the_order_of_arrival(thread: ThreadPoolExecutor) -> None:
    model = Model()
    lengths = [30, 2, 40, 9, 60, 200, 1]
    limits = Limits(budget=100, most=4, packed=True)

    async def ask() -> list[Any]:
        return await crowd(Batcher(model, limits, [Lane(thread)]), model, lengths)

    answers = asyncio.run(ask())
    assert [answer[0][0]["name"] for answer in answers] == list(range(len(lengths)))
    assert model.seen[1:] == [[40, 30, 9, 2], [60], [200], [1]]


@pytest.mark.parametrize(("lengths", "waits"), [([40, 60], False), ([1, 1, 1, 1], False), ([40, 30], True)])
def test_without_padding_a_full_pass_does_not_wait(thread: ThreadPoolExecutor, lengths: list[int], waits: bool) -> None:
    model = Model()
    limits = Limits(budget=100, most=4, packed=True, wait=0.3)

    async def ask() -> float:
        batcher = Batcher(model, limits, [Lane(thread)])
        await asyncio.gather(batcher.answer([feature(1)]), batcher.answer([feature(1)]))  # company: waiting is likely to pay
        start = time.monotonic()
        await asyncio.gather(*(batcher.answer([feature(length)]) for length in lengths))
        spent = time.monotonic() - start
        await batcher.close()
        return spent

    assert (asyncio.run(ask()) >= 0.3) == waits


class Meeting:
    """A model whose passes end once so many are under way together; keeps the threads of PyTorch that each had."""

    def __init__(self, together: int) -> None:
        self.threads: list[int] = []
        self._barrier = threading.Barrier(together)

    def __call__(self, batch: Sequence[Features]) -> list[Answer]:
        self.threads.append(torch.get_num_threads())
        self._barrier.wait(10)
        return [{"name": one.values["name"]} for one in batch]


def test_lanes_compute_at_the_same_time_each_with_its_share_of_threads() -> None:
    model = Meeting(2)

    async def ask() -> list[Any]:
        made = lanes(first_thread(), 4)[:2]
        batcher = Batcher(model, Limits(budget=100, most=1), made)
        answers = await asyncio.gather(*(batcher.answer([feature(1, i)]) for i in range(4)))
        await batcher.close()
        return answers

    assert [answers[0]["name"] for answers, _ in asyncio.run(ask())] == [0, 1, 2, 3]
    assert model.threads == [1, 1, 1, 1]


def test_a_request_alone_has_all_threads_and_nobody_beside_it() -> None:
    model = Meeting(1)
    seen: list[int] = []

    async def ask() -> None:
        batcher = Batcher(model, Limits(budget=100, most=1), lanes(first_thread(), 2))
        for _ in range(3):
            await batcher.answer([feature(1)])
        first = asyncio.create_task(batcher.answer([feature(1)]))
        while len(model.threads) < 4:
            await asyncio.sleep(0)
        await asyncio.gather(first, batcher.answer([feature(1)]))
        seen.extend(model.threads)
        await batcher.close()

    asyncio.run(ask())
    assert seen == [2, 2, 2, 2, 2]


def test_closing_tells_those_in_a_pass(thread: ThreadPoolExecutor) -> None:
    model = Model()
    model.free.clear()

    async def ask() -> None:
        batcher = Batcher(model, Limits(budget=100, most=4), [Lane(thread)])
        asked = asyncio.create_task(batcher.answer([feature(1)]))
        while not model.seen:
            await asyncio.sleep(0.001)
        await batcher.close()
        model.free.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asked, 5)

    asyncio.run(ask())
