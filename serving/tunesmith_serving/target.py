"""Who answers examples: a model in this process (:class:`Here`), or a service (:class:`tunesmith_serving.client.Client`).

Both say what they take and answer in the same words, so that whoever asks need not know which of the two it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tunesmith.errors import DataError
from tunesmith.tasks.base import Example, Features
from tunesmith_serving import plain
from tunesmith_serving.describe import Description, describe

if TYPE_CHECKING:
    from tunesmith.evaluation.predictor import Predictor

BLOCK = 256
"""Examples that a model in this process answers at a time: sorted by length, and few enough to lose little when killed."""
PIECE = 8
"""Examples that are opened at a time."""


@dataclass(frozen=True)
class About:
    """What a target says of itself."""

    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    columns: Mapping[str, str]
    """Roles that it takes → their kind; the first is what a bare value is taken for."""

    @classmethod
    def of(cls, description: Description) -> About:
        """What a served model says, less what only its process needs."""
        given = description
        return cls(given.name, given.version, given.task, given.labels, given.columns)


@dataclass(frozen=True)
class Reply:
    """What one example got: an answer for people (``label``, ``score``, ``scores`` …), or the reason why there is none."""

    index: int
    """Which of the examples that were given, from 0."""
    answer: dict[str, Any] | None = None
    problem: str | None = None


class Target(Protocol):
    """A model that answers, wherever it is."""

    @property
    def about(self) -> About:
        """What it takes and gives."""

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """One reply for each example, in any order, while the examples are still being read. Media are their bytes."""


class Here:
    """A model in this process."""

    def __init__(self, predictor: Predictor, name: str = "model", version: str = "1") -> None:
        self._predictor = predictor
        self._about = About.of(describe(predictor.task, predictor.preprocessing.state, name, version))

    @property
    def about(self) -> About:
        """What the model takes and gives."""
        return self._about

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A block at a time, in order: encoded as they are read, so that few images are in memory, then sorted by length."""
        encoded: list[Features | str] = []
        start = 0
        for piece in batched(examples, PIECE):
            encoded.extend(self._encoded(piece))
            if len(encoded) >= BLOCK:
                yield from self._answered(encoded, start)
                start, encoded = start + len(encoded), []
        yield from self._answered(encoded, start)

    def _encoded(self, examples: Sequence[Example]) -> list[Features | str]:
        """Each example's features, or the reason why it has none."""
        task = self._predictor.task
        found: list[Features | str | None] = [None] * len(examples)
        usable: list[tuple[int, dict[str, Any]]] = []
        for index, example in enumerate(examples):
            try:
                opened = self._opened(example)
                found[index] = task.check(opened)
            except DataError as error:
                found[index] = str(error)
            if found[index] is None:
                usable.append((index, opened))
        try:
            made = task.encode([one for _, one in usable], self._predictor.preprocessing) if usable else []
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
        answers: dict[int, dict[str, Any]] = {}
        for batch in self._predictor.batches(np.asarray([one.length for one in features], np.int32)):
            for index, answer in zip(batch, self._predictor.forward([features[k] for k in batch]), strict=True):
                answers[places[index]] = plain.spoken(answer, self._about.labels)
        for index, one in enumerate(encoded):
            yield Reply(start + index, problem=one) if isinstance(one, str) else Reply(start + index, answers[index])

    def _opened(self, example: Example) -> dict[str, Any]:
        """The example with its images decoded, once."""
        from tunesmith.tasks.images import open_image

        kinds = self._about.columns
        return {
            role: open_image(value) if kinds[role] == "image" and value is not None else value
            for role, value in example.items()
            if role in kinds
        }


def batched(values: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Lists of ``size`` values, the last one shorter."""
    source = iter(values)
    while piece := list(islice(source, size)):
        yield piece
