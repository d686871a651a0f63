"""What a model's process sends back to the front door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tunesmith.tasks.base import Answer, Example
from tunesmith_serving.describe import Description


@dataclass(frozen=True)
class Answered:
    """What comes back of a request's examples."""

    answers: list[Answer] = field(default_factory=list)
    problem: tuple[int | None, str] | None = None
    """An example that cannot be used, from 0, or None for all of them together, and why; then there are no answers."""
    passes: list[tuple[int, float]] = field(default_factory=list)
    """Examples and seconds of each pass of the model that answered it."""
    late: bool = False
    """Whether the answer did not come in time; then there is none."""
    waited: float = 0.0
    """Seconds until the last of them began."""


class Backend(Protocol):
    """One version of a model, wherever it is: in this process, or behind a handle of Ray Serve."""

    description: Description

    async def answer(self, examples: Sequence[Example], timeout: float | None = None) -> Answered:
        """What the model says. Raises :class:`TimeoutError`, or :class:`Refused`."""

    async def ready(self) -> bool:
        """Whether it would answer now."""
