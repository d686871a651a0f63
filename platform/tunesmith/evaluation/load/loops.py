"""Load in a closed loop (so many clients, each with one request under way) and in an open one (arrivals at a rate).

An open loop does not wait for answers, as the world does not: arrivals are a Poisson process, and a latency counts from the
moment that a request was *meant* to be sent. A stall of the server so costs every request that it holds up, not only the few
that were under way (coordinated omission; G. Tene, "How NOT to measure latency", 2013).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.evaluation.load.connection import Connection, Endpoint

MOST_CONNECTIONS = 512
"""Of an open loop; what arrives beyond them waits, and its wait counts."""
EARLY = 0.001
"""Seconds that a request may be sent before its time: the event loop's clock has milliseconds."""


@dataclass
class Shots:
    """The requests of one load, and how it was made."""

    warm_up: float
    """Seconds in the beginning whose requests count for nothing."""
    seconds: float
    """Seconds that count."""
    starts: list[float] = field(default_factory=list)
    """When each request was sent, or meant to be, in seconds since the load began."""
    ends: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """Seconds by which a request left later than meant though a connection was free: the client's own fault."""
    cpu: float = 0.0
    """Cores that the client itself kept busy."""

    def add(self, start: float, end: float, status: int) -> None:
        """One request that was answered, or given up."""
        self.starts.append(start)
        self.ends.append(end)
        self.statuses.append(status)


async def closed(
    endpoint: Endpoint, requests: Sequence[bytes], clients: int, *, warm_up: float, seconds: float, timeout: float
) -> Shots:
    """``clients`` that each ask again as soon as they have an answer."""
    shots, begin, own = Shots(warm_up, seconds), time.perf_counter(), time.process_time()

    async def client(first: int) -> None:
        connection, index = Connection(endpoint, timeout), first
        while (start := time.perf_counter() - begin) < warm_up + seconds:
            status = await connection.ask(requests[index % len(requests)])
            shots.add(start, time.perf_counter() - begin, status)
            if status == 0:
                await asyncio.sleep(0.05)  # a server that is down is not asked as fast as the machine can
            index += clients
        connection.close()

    await asyncio.gather(*(client(one) for one in range(clients)))
    shots.cpu = (time.process_time() - own) / (time.perf_counter() - begin)
    return shots


async def poisson(
    endpoint: Endpoint,
    requests: Sequence[bytes],
    rate: float,
    *,
    warm_up: float,
    seconds: float,
    timeout: float,
    seed: int = 42,
) -> Shots:
    """Requests that arrive at ``rate`` a second, whatever becomes of those before."""
    shots, own = Shots(warm_up, seconds), time.process_time()
    due = arrivals(rate, warm_up + seconds, seed)
    queue: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
    idle = 0
    workers: list[asyncio.Task[None]] = []
    begin = time.perf_counter()

    async def worker() -> None:
        nonlocal idle
        connection = Connection(endpoint, timeout)
        while True:
            idle += 1
            job = await queue.get()
            idle -= 1
            if job is None:
                break
            index, meant = job
            status = await connection.ask(requests[index % len(requests)])
            shots.add(meant, time.perf_counter() - begin, status)
        connection.close()

    for index, meant in enumerate(due):
        now = time.perf_counter() - begin
        if meant - now > EARLY:
            await asyncio.sleep(meant - now - EARLY / 2)
            now = time.perf_counter() - begin
        free = idle - queue.qsize() > 0
        if not free and len(workers) < MOST_CONNECTIONS:
            workers.append(asyncio.create_task(worker()))
            free = True
        if free:
            shots.late.append(max(0.0, now - meant))
        queue.put_nowait((index, min(meant, now)))
    for _ in workers:
        queue.put_nowait(None)
    await asyncio.gather(*workers)
    shots.cpu = (time.process_time() - own) / (time.perf_counter() - begin)
    return shots


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests arrive within so many seconds: gaps are exponential, on average ``1 / rate``.

    >>> due = arrivals(100, 50, seed=1)
    >>> 4700 < len(due) < 5300, max(due) < 50
    (True, True)
    """
    rng = np.random.default_rng(seed)
    found: list[float] = []
    at = 0.0
    while at < seconds:
        gaps = np.cumsum(rng.exponential(1 / rate, size=1024)) + at
        found.extend(gaps[gaps < seconds].tolist())
        at = float(gaps[-1])
    return found
