"""Who is tested: a model that answers examples, wherever it is. Every suite asks through this one Protocol.

A target answers in the task's own terms (:data:`tunesmith.tasks.base.Answer`), so that its answers are scored, sliced and
compared by the same code whether they come from this process or from a server that somebody else has built
(:class:`tunesmith.evaluation.v2_target.V2Target`, :class:`tunesmith.evaluation.chat_target.ChatTarget`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tunesmith.errors import DataError
from tunesmith.tasks.base import Answer, Example, Features, State, Task

if TYPE_CHECKING:
    from tunesmith.evaluation.predictor import Predictor

Provided = Literal["labels", "scores", "logits", "hidden", "text"]
"""What a target tells of an example: the answer alone, each class's probability, …"""

BLOCK = 256
"""Examples that a model in this process answers at a time: sorted by length, and few enough to lose little when killed."""
PIECE = 8
"""Examples that are opened at a time: few images are in memory as they are."""


@dataclass(frozen=True)
class Reply:
    """What one example got: the answer, or the reason why there is none."""

    index: int
    """Which of the examples that were given, from 0."""
    answer: Answer | None = None
    problem: str | None = None
    seconds: float | None = None
    """How long the request took that answered it, its repetitions included; None where it was no request."""
    version: str | None = None
    """The version of the model that has answered, where the server says so."""


class Target(Protocol):
    """A model that answers, wherever it is."""

    @property
    def name(self) -> str:
        """For people: a run's name, or a URL."""

    @property
    def version(self) -> str:
        """Which version of the model answers; answers of two versions do not belong together."""

    @property
    def task(self) -> Task:
        """What it is asked, and in what terms it answers."""

    @property
    def state(self) -> State:
        """The labels in the order of its probabilities, and whatever else scoring needs."""

    @property
    def provides(self) -> frozenset[Provided]:
        """What it tells of an example."""

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """One reply for each example, in any order, while the examples are still being read. Their target role is not sent."""


class ServedTarget(Target, Protocol):
    """A model behind a server."""

    @property
    def model(self) -> str:
        """The model's name there."""

    @property
    def batch_size(self) -> int:
        """Most examples of one request."""

    def body(self, examples: Iterable[Example]) -> bytes:
        """The request about these examples, as JSON."""

    def infer_url(self) -> str:
        """Where requests go."""

    def mapping(self) -> dict[str, Any]:
        """How it is asked and read, as plain values: answers that were read otherwise do not belong to these."""

    def close(self) -> None:
        """End what is under way, and let go of the connections."""


class Here:
    """A model in this process."""

    def __init__(self, predictor: Predictor, name: str = "model", version: str = "1") -> None:
        self.name, self.version = name, version
        self.task: Task = predictor.task
        self.state: State = predictor.preprocessing.state
        self.provides: frozenset[Provided] = frozenset({"labels", "scores"})
        self.predictor = predictor

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A block at a time, in order: encoded as they are read, so that few images are in memory, then sorted by length."""
        encoded: list[Features | str] = []
        start = 0
        for piece in in_pieces(examples, PIECE):
            encoded.extend(self._encoded(piece))
            if len(encoded) >= BLOCK:
                yield from self._answered(encoded, start)
                start, encoded = start + len(encoded), []
        yield from self._answered(encoded, start)

    def _encoded(self, examples: Sequence[Example]) -> list[Features | str]:
        """Each example's features, or the reason why it has none."""
        found: list[Features | str | None] = [None] * len(examples)
        usable: list[tuple[int, dict[str, Any]]] = []
        for index, example in enumerate(examples):
            try:
                opened = self._opened(example)
                found[index] = self.task.check(opened)
            except DataError as error:
                found[index] = str(error)
            if found[index] is None:
                usable.append((index, opened))
        try:
            made = self.task.encode([one for _, one in usable], self.predictor.preprocessing) if usable else []
            for (index, _), features in zip(usable, made, strict=True):
                found[index] = features
        except DataError as error:
            if len(examples) == 1:
                return [str(error)]
            return [one for example in examples for one in self._encoded([example])]
        return [one for one in found if one is not None]

    def _answered(self, encoded: Sequence[Features | str], start: int) -> Iterator[Reply]:
        places = [index for index, one in enumerate(encoded) if not isinstance(one, str)]
        features = [one for one in encoded if not isinstance(one, str)]
        answers: dict[int, Answer] = {}
        for batch in self.predictor.batches(np.asarray([one.length for one in features], np.int32)):
            for index, answer in zip(batch, self.predictor.forward([features[k] for k in batch]), strict=True):
                answers[places[index]] = answer
        for index, one in enumerate(encoded):
            yield Reply(start + index, problem=one) if isinstance(one, str) else Reply(start + index, answers[index])

    def _opened(self, example: Example) -> dict[str, Any]:
        """The example without its target, its images decoded once."""
        from tunesmith.tasks.images import open_image

        columns = self.task.columns
        return {
            role: open_image(value) if columns[role].kind == "image" and value is not None else value
            for role, value in example.items()
            if role in columns and role != self.task.target
        }


def in_pieces(values: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Lists of ``size`` values, the last one shorter."""
    source = iter(values)
    while piece := list(islice(source, size)):
        yield piece
