"""Where a standing group's workers take their requests and leave their answers: one small Ray actor beside the driver.

One request is under way at a time. Whoever waits asks for a few seconds and then asks again, so that nobody waits for an actor
that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunesmith.training.mailbox import Ending


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    answer: Any = None
    """Rank 0's."""
    failed: str = ""
    """Why a rank failed, by its own words."""
    user: bool = False
    """Whether that was a :class:`UserError`."""


@dataclass(frozen=True)
class Request:
    """What all ranks are to do."""

    number: int
    """From 1."""
    what: Any


class Desk(Ending):
    """The actor's class. Its methods wait side by side."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers
        self._ready: set[int] = set()
        self._done: set[int] = set()
        self._request = Request(0, None)
        self._answer: Any = None
        self._outcome: Outcome | None = None
        self._changed = asyncio.Event()

    def ready(self, rank: int) -> None:
        """A rank can take requests."""
        self._ready.add(rank)
        self._change()

    async def all_ready(self, within: float) -> bool | None:
        """Whether all ranks can; None where they cannot after so many seconds."""
        return True if await self._until(lambda: len(self._ready) == self._workers, within) else None

    def ask(self, what: Any) -> None:
        """Hand out the next request."""
        self._request = Request(self._request.number + 1, what)
        self._done, self._answer, self._outcome = set(), None, None
        self._change()

    async def take(self, after: int, within: float) -> Request | None:
        """The request after that number; None where there is none after so many seconds."""
        found = await self._until(lambda: self._request.number > after or self.ended(), within)
        return self._request if found and self._request.number > after else None

    def done(self, rank: int, answer: Any) -> None:
        """A rank has done its part; rank 0 brings the answer."""
        self._done.add(rank)
        self._answer = answer if rank == 0 else self._answer
        if len(self._done) == self._workers and self._outcome is None:
            self._outcome = Outcome(self._answer)
            self._request = Request(self._request.number, None)
        self._change()

    def failed(self, why: str, user: bool) -> None:
        """A rank has failed; the first word counts."""
        self._outcome = self._outcome or Outcome(failed=why, user=user)
        self._change()

    async def outcome(self, within: float) -> Outcome | None:
        """What came of the request; None where it is still under way after so many seconds. Told once."""
        if not await self._until(lambda: self._outcome is not None, within):
            return None
        told, self._outcome, self._answer = self._outcome, None, None
        return told

    def fail(self, error: BaseException) -> None:
        """No more requests: the ranks may go home."""
        super().fail(error)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, met: Callable[[], bool], within: float) -> bool:
        deadline = asyncio.get_running_loop().time() + within
        while not met():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        return True
