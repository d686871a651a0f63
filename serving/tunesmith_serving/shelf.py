"""The models of a service, by name and version, each with its limits; and who answers while a new version comes in.

This is the stable router: what is on the shelf changes while requests are answered, and each keeps the version that it has.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import Answer, Example
from tunesmith_serving.describe import Description
from tunesmith_serving.metrics import Metrics
from tunesmith_serving.mirror import Answered, Mirror
from tunesmith_serving.problems import busy, invalid, late, missing, unwieldy
from tunesmith_serving.reply import Backend
from tunesmith_serving.rollout import Rollout, Tally


@dataclass
class Served:
    """One version of a model: where it is, and how much it takes."""

    backend: Backend
    settings: ServingSection = field(default_factory=ServingSection)
    open: int = 0
    """Requests that are read, wait or are answered; with none it may go."""
    pace: float = 0.05
    """Seconds between two answers lately, smoothed: what ``Retry-After`` is made of."""

    @property
    def description(self) -> Description:
        """What it says of itself."""
        return self.backend.description

    def within(self, deadline: float | None) -> float:
        """Seconds that a request has: the model's, or the caller's where those are fewer."""
        return min(self.settings.timeout_s, deadline or math.inf)


class Shelf:
    """Models by name, each with its versions; the first version given is the one that is meant where none is named."""

    def __init__(self, served: Sequence[Served], metrics: Metrics, mirror: Mirror | None = None) -> None:
        self.models: dict[str, dict[str, Served]] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.tallies: dict[str, Tally] = {}
        self.metrics, self.mirror = metrics, mirror or Mirror(metrics)
        self.put(served)

    def put(self, served: Sequence[Served], rollouts: Mapping[str, Rollout] | None = None) -> None:
        """Serve these from now on, at once; who is answered by another one still is.

        A rollout that goes on, with another share perhaps, keeps its tally.
        """
        models: dict[str, dict[str, Served]] = {}
        for one in served:
            models.setdefault(one.description.name, {})[one.description.version] = one
        for name, version in _pairs(self.models) - _pairs(models):
            self.metrics.forget(name, version)
        for name, version in _pairs(models):
            self.metrics.watch(name, version, partial(getattr, models[name][version], "open"))
        before, self.rollouts, self.models = self.rollouts, dict(rollouts or {}), models
        self.tallies = {
            name: self.tallies[name] if name in before and before[name].id == rollout.id else Tally()
            for name, rollout in self.rollouts.items()
        }

    @property
    def max_body(self) -> int:
        """Bytes of the largest body that is taken."""
        every = [one.settings.max_body_mb for versions in self.models.values() for one in versions.values()]
        return int(max(every, default=1.0) * 2**20)

    def find(self, name: str, version: str | None = None, sticky: str | None = None) -> Served:
        """The version that is named, or else the one for this caller; without ``sticky`` the one that most are meant by.

        Raises :class:`Refused` (404).
        """
        versions = self.models.get(name)
        if versions is None:
            raise missing(f"there is no model {name!r}")
        if version is None:
            stable, rollout = next(iter(versions)), self.rollouts.get(name)
            version = rollout.answers(stable, sticky) if rollout is not None and sticky is not None else stable
        if version not in versions:
            raise missing(f"{name} has no version {version!r}; there are {', '.join(versions)}")
        return versions[version]

    @contextmanager
    def hold(self, served: Served) -> Iterator[Served]:
        """A place in the queue from the body's first byte to the answer; a version that leaves the shelf is kept until then.

        Raises :class:`Refused` (429) where the queue is full.
        """
        about = served.description
        if served.open >= served.settings.max_queue:
            self.metrics.refused.labels(about.name, about.version).inc()
            raise busy(about.name, served.open, math.ceil(served.open * served.pace))
        served.open += 1
        try:
            yield served
        finally:
            served.open -= 1

    async def ready(self) -> bool:
        """Whether every version would answer now that callers get; one in shadow is not."""
        asked = [
            one
            for name, versions in self.models.items()
            for version, one in versions.items()
            if not (name in self.rollouts and self.rollouts[name].kind == "shadow" and self.rollouts[name].candidate == version)
        ]
        return all(await asyncio.gather(*(one.backend.ready() for one in asked)))

    async def answer(self, served: Served, examples: Sequence[Example], deadline: float | None, field: str) -> list[Answer]:
        """The answers of a model that is held, in order. Raises :class:`Refused` with 413, 422, 429, 503 or 504.

        ``deadline`` are the seconds that the caller will wait; ``field`` is what an example is called in a message.
        """
        about = served.description
        seconds = served.within(deadline)
        start = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                told = await served.backend.answer(examples, seconds)
        except TimeoutError as error:
            raise late(about.name, seconds) from error
        served.pace += 0.1 * ((asyncio.get_running_loop().time() - start) / max(1, served.open) - served.pace)
        if told.problem is not None:
            index, why = told.problem
            raise invalid(f"{field}[{index}]", why) if index is not None else unwieldy(field, why)
        self.metrics.answered(about.name, about.version, len(examples), told)
        return told.answers

    def answered(self, done: Answered) -> None:
        """A caller who named no version has this answer: count it, and let the other version hear the request."""
        name, rollout = done.by.name, self.rollouts.get(done.by.name)
        if rollout is None or done.by.version not in (versions := self.models[name]):
            return
        tally, stable = self.tallies[name], next(iter(versions))
        tally.answered[done.by.version] += 1
        other = rollout.mirrors(stable, done.by.version, done.id)
        if other is not None:
            self.mirror.send(done, versions[other].backend, rollout, tally)


def _pairs(models: Mapping[str, Mapping[str, Served]]) -> set[tuple[str, str]]:
    return {(name, version) for name, versions in models.items() for version in versions}
