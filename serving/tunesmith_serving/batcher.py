"""Dynamic batching: requests that wait while the model works share its next pass, sorted by length, within a token budget."""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.evaluation.predictor import batches_by_length
from tunesmith.tasks.base import Answer, Features
from tunesmith_serving.lanes import Lane, with_threads

PLANNED = 8
"""A pass is chosen from the examples of so many, the oldest that wait: enough for similar lengths, and quickly planned."""

Forward = Callable[[Sequence[Features]], list[Answer]]
"""One pass of the model over a batch, an answer for each; runs in a lane's thread, and in several at a time."""


@dataclass(frozen=True)
class Limits:
    """How batches are made."""

    budget: int
    """Most tokens of a pass: the sum of lengths, each counted as the longest of its batch unless it is packed."""
    most: int
    """Most examples of a pass."""
    beside: int = 1
    """What a pass costs beside its tokens, in tokens."""
    wait: float = 0.0
    """Seconds a request waits for company at the most, and only where the pass before had some."""
    equal_lengths: bool = False
    """Only examples of one length share a pass: for models whose answers change with padding."""
    packed: bool = False
    """There is no padding (:mod:`tunesmith.evaluation.packing`): any lengths share a pass, in the order in which they came."""


@dataclass(eq=False)
class Waiting:
    """One example that waits for its answer."""

    features: Features
    answer: asyncio.Future[Answer]
    since: float
    """``time.monotonic()`` of its arrival."""
    until: float
    """When nobody waits for the answer any more."""
    passed: Pass | None = None


@dataclass
class Pass:
    """What is told of one pass of the model, for metrics."""

    size: int
    tokens: int
    waited: list[float] = field(default_factory=list)
    """Seconds that each example waited."""
    seconds: float = 0.0


class Batcher:
    """Answers examples in batches. Work-conserving: while nothing is being computed, nothing that is full or alone waits."""

    def __init__(self, forward: Forward, limits: Limits, lanes: Sequence[Lane]) -> None:
        self._forward, self._limits, self._lanes = forward, limits, lanes
        self._free = list(range(len(lanes)))
        """Places of the lanes that compute nothing, the first before the others."""
        self._wide = False
        """Whether a pass has all lanes' cores."""
        self._waiting: list[Waiting] = []
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._passes: set[asyncio.Task[None]] = set()
        self._company = False
        """Whether the last pass held more than one request's examples, so that waiting is likely to pay."""

    @property
    def depth(self) -> int:
        """Examples that wait."""
        return len(self._waiting)

    async def answer(self, examples: Sequence[Features], timeout: float = float("inf")) -> tuple[list[Answer], list[Pass]]:
        """The answers in order, and the passes they came from.

        Raises :class:`TimeoutError` where they are not there in time; what has not been computed by then never is.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        mine = [Waiting(one, loop.create_future(), now, now + timeout) for one in examples]
        self._waiting += mine
        if self._worker is None or self._worker.done():
            self._arrived = asyncio.Event()  # of the loop in which this worker runs
            self._worker = loop.create_task(self._work())
        self._arrived.set()
        try:
            async with asyncio.timeout(None if timeout == float("inf") else timeout):
                answers = [await one.answer for one in mine]
        finally:
            for one in mine:
                one.answer.cancel()
        passes = {id(one.passed): one.passed for one in mine if one.passed is not None}
        return answers, list(passes.values())

    async def close(self) -> None:
        """Stop working; whoever waits is told so."""
        tasks = [*self._passes, *([self._worker] if self._worker is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self._waiting:
            one.answer.cancel()
        self._waiting.clear()

    async def _work(self) -> None:
        """Give each lane that is free a batch of those that wait."""
        loop = asyncio.get_running_loop()
        while True:
            self._drop_the_given_up()
            if not self._waiting or not self._free or self._wide:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if self._company and (rest := self._may_wait()) > 0:
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await self._arrived.wait()
                continue
            batch = self._next()
            held = set(map(id, batch))
            self._waiting = [one for one in self._waiting if id(one) not in held]
            self._start(loop, batch)

    def _start(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        """Compute a batch in the first lane that is free: with all cores where nothing else is there to be computed."""
        place = self._free.pop(0)
        lane = self._lanes[place]
        self._wide = lane.widest > lane.width and not self._passes and not self._waiting
        self._company = len({one.since for one in batch}) > 1 or bool(self._waiting)
        task = loop.create_task(self._compute(loop, batch, lane, lane.widest if self._wide else lane.width))
        self._passes.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._passes.discard(task)
            self._wide = False
            insort(self._free, place)
            for one in batch:
                one.answer.cancel()  # of those without an answer: the batcher was closed
            self._arrived.set()

        task.add_done_callback(done)

    async def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting], lane: Lane, threads: int) -> None:
        start = time.monotonic()
        longest = max(one.features.length for one in batch)
        tokens = sum(one.features.length for one in batch) if self._limits.packed else longest * len(batch)
        told = Pass(len(batch), tokens, [start - one.since for one in batch])
        try:
            answers = await loop.run_in_executor(
                lane.executor, with_threads, threads, self._forward, [one.features for one in batch]
            )
        except Exception as error:
            if len(batch) > 1:  # one bad example must not take the others with it
                for one in batch:
                    await self._compute(loop, [one], lane, threads)
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
                batch[0].answer.exception()  # seen: a caller that has gone must not make a warning
            return
        told.seconds = time.monotonic() - start
        for one, answer in zip(batch, answers, strict=True):
            one.passed = told
            if not one.answer.done():
                one.answer.set_result(answer)

    def _next(self) -> list[Waiting]:
        """The batch that the oldest request is in, of those longest waiting: sorted by length, and nobody waits for ever."""
        if self._limits.packed:
            first = self._waiting[: self._fitting()]
            return sorted(first, key=lambda one: one.features.length, reverse=True)
        waiting = self._waiting[: PLANNED * self._limits.most]
        lengths = np.asarray([one.features.length for one in waiting], dtype=np.int32)
        oldest = int(np.argmin([one.since for one in waiting]))
        if self._limits.equal_lengths:
            same = np.flatnonzero(lengths == lengths[oldest])[: self._size_of(int(lengths[oldest]))]
            return [waiting[i] for i in same]
        for indices in batches_by_length(lengths, self._limits.budget, self._limits.most, self._limits.beside):
            if oldest in indices:
                return [waiting[i] for i in indices]
        raise AssertionError("every example is in a batch")

    def _fitting(self) -> int:
        """How many of those that wait, the oldest first, fit into one pass without padding; at least one."""
        sums = np.cumsum([one.features.length for one in self._waiting[: self._limits.most]])
        return max(1, int(np.searchsorted(sums, self._limits.budget, side="right")))

    def _size_of(self, length: int) -> int:
        return max(1, min(self._limits.most, self._limits.budget // max(1, length)))

    def _may_wait(self) -> float:
        """Seconds that the oldest may still wait for others; 0 where a batch is full already."""
        if self._full():
            return 0.0
        oldest = min(self._waiting, key=lambda one: one.since)
        now = time.monotonic()
        return min(oldest.since + self._limits.wait, oldest.until) - now

    def _full(self) -> bool:
        """Whether a pass over those that wait would leave some of them, or could take no more."""
        if len(self._waiting) >= self._limits.most:
            return True
        if self._limits.packed:
            return sum(one.features.length for one in self._waiting) >= self._limits.budget
        return len(self._waiting) >= self._size_of(max(one.features.length for one in self._waiting))

    def _drop_the_given_up(self) -> None:
        now = time.monotonic()
        self._waiting = [one for one in self._waiting if not one.answer.done() and one.until > now]
