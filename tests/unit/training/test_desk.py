"""Requests of a standing group: every rank gets each one once, and it is done when all have done their part."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tunesmith.training.desk import Desk, Outcome, Request
from tunesmith.training.mailbox import Stopped

SOON = 0.01


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_a_request_reaches_those_that_wait_and_those_that_come_later() -> None:
    async def work() -> None:
        desk = Desk(2)
        waiting = asyncio.create_task(desk.take(0, 5))
        await asyncio.sleep(SOON)
        desk.ask("first")
        assert await waiting == Request(1, "first")
        assert await desk.take(0, 5) == Request(1, "first")
        assert await desk.take(1, SOON) is None

    run(work())


def test_it_is_done_when_all_ranks_are_and_the_answer_is_that_of_rank_0() -> None:
    async def work() -> None:
        desk = Desk(2)
        desk.ask("what")
        desk.done(0, "answer")
        assert await desk.outcome(SOON) is None
        desk.done(1, None)
        assert await desk.outcome(5) == Outcome("answer")
        assert await desk.outcome(SOON) is None, "told once"
        desk.ask("next")
        assert await desk.outcome(SOON) is None, "the next request has its own"

    run(work())


def test_the_first_rank_that_fails_says_why() -> None:
    async def work() -> None:
        desk = Desk(2)
        desk.ask("what")
        waiting = asyncio.create_task(desk.outcome(5))
        await asyncio.sleep(SOON)
        desk.failed("no such metric", user=True)
        desk.failed("connection closed by peer", user=False)
        assert await waiting == Outcome(failed="no such metric", user=True)

    run(work())


def test_all_are_ready_when_each_is_and_whoever_waits_is_sent_home_in_the_end() -> None:
    async def work() -> None:
        desk = Desk(2)
        desk.ready(1)
        desk.ready(1)
        assert await desk.all_ready(SOON) is None
        desk.ready(0)
        assert await desk.all_ready(5) is True
        waiting = asyncio.create_task(desk.take(0, 5))
        await asyncio.sleep(SOON)
        desk.fail(Stopped())
        assert await waiting is None
        assert desk.ended()

    run(work())
