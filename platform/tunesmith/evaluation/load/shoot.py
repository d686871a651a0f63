"""A load on a served model: what is asked, how, and what is kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunesmith.errors import ServiceError
from tunesmith.evaluation.load.connection import Endpoint
from tunesmith.evaluation.load.figures import Figures, summed_up
from tunesmith.evaluation.load.loops import closed, poisson
from tunesmith.evaluation.load.search import Step
from tunesmith.evaluation.results import SuiteResult, plain
from tunesmith.evaluation.targets import ServedTarget
from tunesmith.tasks.base import Example

MOST_SAMPLES = 512
"""Different samples that are asked about, over and over: a server that caches answers is measured as one."""


@dataclass(frozen=True)
class Load:
    """How the load is made."""

    clients: int = 8
    """Of a closed loop, each with one request under way."""
    rate: float | None = None
    """Requests a second of an open loop; None is a closed one."""
    seconds: float = 10.0
    """That count."""
    warm_up: float = 2.0
    """Seconds before them."""
    timeout: float = 10.0
    """Seconds after which an answer counts as none."""
    slo_ms: float | None = None
    """The limit that an answer must keep, in milliseconds."""
    batch_size: int = 1
    """Samples of a request."""
    seed: int = 42
    """Of the arrivals."""

    def sentence(self) -> str:
        """The load in words."""
        each = f"{self.batch_size} samples" if self.batch_size > 1 else "one sample"
        how = f"{self.clients} clients in a closed loop" if self.rate is None else f"{self.rate:g} arrivals a second (Poisson)"
        return f"{how}, {each} a request, {self.seconds:g} s after {self.warm_up:g} s of warm-up"


def requests_of(target: ServedTarget, examples: Iterable[Example], endpoint: Endpoint, batch_size: int) -> list[bytes]:
    """The requests about these samples, ready to be sent."""
    found, source = [], iter(examples)
    while piece := list(islice(source, batch_size)):
        found.append(endpoint.request(target.body(piece)))
    return found


def shoot(endpoint: Endpoint, requests: Sequence[bytes], load: Load, *, must_answer: bool = True) -> Figures:
    """Make the load. Raises :class:`ServiceError` where no request at all is answered though some must be."""
    times = {"warm_up": load.warm_up, "seconds": load.seconds, "timeout": load.timeout}
    if load.rate is None:
        shots = asyncio.run(closed(endpoint, requests, load.clients, **times))
    else:
        shots = asyncio.run(poisson(endpoint, requests, load.rate, **times, seed=load.seed))
    found = summed_up(shots, load.slo_ms)
    if must_answer and not found.statuses.get("200"):
        told = ", ".join(f"{count} × {status}" for status, count in found.statuses.items()) or "no request came so far"
        raise ServiceError(
            f"{endpoint.host}:{endpoint.port} answered no request within {load.timeout:g} s ({told})\n"
            "    → Is the service running, and the key right? `tunesmith evaluate URL` says what it answers."
        )
    return found


def suite(figures: Figures, load: Load) -> SuiteResult:
    """The load as the suite ``latency`` of an evaluation."""
    return SuiteResult(
        title="Latency and load",
        n=figures.n,
        measures=figures.measures(),
        notes=[f"The load: {load.sentence()}.", *figures.notes],
        seconds=load.seconds + load.warm_up,
    )


def as_json(load: Load, figures: Figures | None, steps: Sequence[Step] = (), rate: float | None = None) -> dict[str, Any]:
    """A load test as it is stored."""
    found: dict[str, Any] = {"format": 1, "load": load}
    if figures is not None:
        found |= {"figures": figures, "good_per_second": figures.good_per_second}
    if rate is not None:
        found |= {"saturation": {"rate": rate, "steps": list(steps)}}
    return dict(plain(found))
