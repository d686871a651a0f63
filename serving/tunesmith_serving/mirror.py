"""Requests that another version hears too, once their callers have their answers; and the pairs of answers that come of it.

Nothing here can reach a caller: few are under way at a time, what is beyond that is dropped and counted, each has a deadline of
its own, and whatever fails is counted and forgotten.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from typing import Any

from tunesmith.tasks.base import Answer, Example
from tunesmith_serving.describe import Description
from tunesmith_serving.metrics import Metrics
from tunesmith_serving.plain import spoken
from tunesmith_serving.reply import Backend
from tunesmith_serving.rollout import Rollout, Tally, agree

UNDER_WAY = 8
"""Mirrored requests at a time, of all models together."""
BYTES = 64 << 20
"""Bytes of their bodies at a time."""
WITHIN = 10.0
"""Seconds that a mirrored request has."""
SHOWN = 16
"""Examples of a request whose answers are written down; the others are counted."""
FILE = 16 << 20
"""Bytes of the file of pairs; then it becomes ``….jsonl.1``, and the one before that is gone."""

_LOG = logging.getLogger("tunesmith.serving")


@dataclass(frozen=True)
class Answered:
    """A request that its caller has the answer of."""

    id: str
    examples: Sequence[Example]
    answers: Sequence[Answer]
    by: Description
    seconds: float
    size: int
    """Bytes of its body."""


class Mirror:
    """Asks the other version, and compares. Lives in one event loop."""

    def __init__(self, metrics: Metrics, pairs: str | None = None, *, within: float = WITHIN) -> None:
        """``pairs`` is the file that the pairs are written to; without one they are counted only."""
        self._metrics, self._within = metrics, within
        self._file = PairFile(pairs) if pairs else None
        self._under_way: set[asyncio.Task[None]] = set()
        self._bytes = 0

    @property
    def under_way(self) -> int:
        """Mirrored requests that have no answer yet."""
        return len(self._under_way)

    def send(self, done: Answered, other: Backend, rollout: Rollout, tally: Tally) -> None:
        """Ask ``other`` the same, in the background; or drop it where too many are under way."""
        name, version = other.description.name, other.description.version
        if len(self._under_way) >= UNDER_WAY or self._bytes + done.size > BYTES:
            tally.dropped += 1
            self._metrics.mirror_dropped.labels(name, version).inc()
            return
        tally.mirrored += 1
        self._metrics.mirrored.labels(name, version).inc()
        self._bytes += done.size
        task = asyncio.get_running_loop().create_task(self._ask(done, other, rollout, tally))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _ask(self, done: Answered, other: Backend, rollout: Rollout, tally: Tally) -> None:
        about, start = other.description, time.perf_counter()
        try:
            async with asyncio.timeout(self._within):
                told = await other.answer(done.examples, self._within)
            if told.problem is not None:
                raise ValueError(told.problem[1])
            same = [agree(*both) for both in zip(done.answers, told.answers, strict=True)]
            seconds = time.perf_counter() - start
            tally.pairs += len(same)
            tally.agreed += sum(same)
            self._metrics.paired(about.name, rollout.candidate, len(same), sum(same))
            if self._file is not None:
                self._file.write(_line(done, told.answers, about, seconds, same) | {"rollout": rollout.id})
        except Exception as error:
            tally.failed += 1
            self._metrics.mirror_failed.labels(about.name, about.version).inc()
            fields = {"id": done.id, "model": about.name, "version": about.version, "why": type(error).__name__}
            _LOG.warning("mirrored request failed", extra={"fields": fields})  # its words may hold the input
        finally:
            self._bytes -= done.size


def _line(done: Answered, answers: Sequence[Answer], by: Description, seconds: float, same: Sequence[bool]) -> dict[str, Any]:
    """What is written down of a pair: never an input, never a key."""
    told = ((done.by, done.answers, done.seconds), (by, answers, seconds))
    return {
        "id": done.id,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": by.name,
        "answered": done.by.version,
        "mirrored": by.version,
        "agree": all(same),
        "examples": len(same),
        "agreed": sum(same),
        "ms": {about.version: round(1000 * took, 2) for about, _, took in told},
        "answers": {about.version: [spoken(answer, about.labels) for answer in given[:SHOWN]] for about, given, _ in told},
    }


class PairFile:
    """JSON lines in a file that stays below twice :data:`FILE` bytes, with the one before it."""

    def __init__(self, path: str) -> None:
        self._handler = RotatingFileHandler(path, maxBytes=FILE, backupCount=1, encoding="utf-8", delay=True)
        weakref.finalize(self, self._handler.close)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line."""
        text = json.dumps(line, ensure_ascii=False)
        self._handler.handle(logging.LogRecord("pairs", logging.INFO, "", 0, "%s", (text,), None))
