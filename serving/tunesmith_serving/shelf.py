"""The models of a service, by name and version, each with its limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import Answer, Example
from tunesmith_serving.describe import Description
from tunesmith_serving.metrics import Metrics
from tunesmith_serving.problems import busy, invalid, late, missing
from tunesmith_serving.reply import Backend


@dataclass
class Served:
    """One version of a model: where it is, and how much it takes."""

    backend: Backend
    settings: ServingSection = field(default_factory=ServingSection)
    open: int = 0
    """Requests that are answered or wait."""
    pace: float = 0.05
    """Seconds between two answers lately, smoothed: what ``Retry-After`` is made of."""

    @property
    def description(self) -> Description:
        """What it says of itself."""
        return self.backend.description


class Shelf:
    """Models by name, each with its versions; the first version given is the one that is meant where none is named."""

    def __init__(self, served: Sequence[Served], metrics: Metrics) -> None:
        self.models: dict[str, dict[str, Served]] = {}
        self.metrics = metrics
        for one in served:
            about = one.description
            self.models.setdefault(about.name, {})[about.version] = one
            metrics.watch(about.name, about.version, partial(getattr, one, "open"))

    def find(self, name: str, version: str | None = None) -> Served:
        """Raises :class:`Refused` (404)."""
        versions = self.models.get(name)
        if versions is None:
            raise missing(f"there is no model {name!r}")
        if version is None:
            return next(iter(versions.values()))
        if version not in versions:
            raise missing(f"{name} has no version {version!r}; there are {', '.join(versions)}")
        return versions[version]

    async def ready(self) -> bool:
        """Whether every model would answer now."""
        served = [one for versions in self.models.values() for one in versions.values()]
        return all(await asyncio.gather(*(one.backend.ready() for one in served)))

    async def answer(self, served: Served, examples: Sequence[Example], deadline: float | None, field: str) -> list[Answer]:
        """The answers of a model, in order. Raises :class:`Refused` with 422, 429, 503 or 504.

        ``deadline`` are the seconds that the caller will wait; ``field`` is what an example is called in a message.
        """
        about = served.description
        seconds = min(served.settings.timeout_s, deadline or math.inf)
        with self._place(served):
            start = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(seconds):
                    told = await served.backend.answer(examples, seconds)
            except TimeoutError as error:
                raise late(about.name, seconds) from error
            served.pace += 0.1 * ((asyncio.get_running_loop().time() - start) / max(1, served.open) - served.pace)
        if told.problem is not None:
            index, why = told.problem
            raise invalid(f"{field}[{index}]", why)
        self.metrics.answered(about.name, about.version, len(examples), told)
        return told.answers

    @contextmanager
    def _place(self, served: Served) -> Iterator[None]:
        """A place in the queue. Raises :class:`Refused` (429) where it is full."""
        about = served.description
        if served.open >= served.settings.max_queue:
            self.metrics.refused.labels(about.name, about.version).inc()
            raise busy(about.name, served.open, math.ceil(served.open * served.pace))
        served.open += 1
        try:
            yield
        finally:
            served.open -= 1
