"""A served model as suites ask it, resumable at the sample: what a log has is not asked again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from tunesmith.evaluation.journal import Journal
from tunesmith.evaluation.targets import Provided, Reply, ServedTarget
from tunesmith.tasks.base import Example, State, Task

DIGEST = 16
"""Bytes of a question's hash."""


class Remembered:
    """A target whose replies are kept by what was asked: suites ask in the same order each time, of examples that they make.

    An example that is asked about again is a question of its own, the first, second … of its kind, so that a suite may look at
    how answers to the same differ.
    """

    def __init__(self, target: ServedTarget, journal: Journal) -> None:
        self.name, self.version = target.name, target.version
        self.task: Task = target.task
        self.state: State = target.state
        self.provides: frozenset[Provided] = target.provides
        self._target, self._journal = target, journal
        self._times: Counter[bytes] = Counter()

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A reply for each example, as they come in; those that are kept between the others."""
        places: list[tuple[int, int, str]] = []
        kept: list[Reply] = []

        def waiting() -> Iterator[Example]:
            for place, example in enumerate(examples):
                key, content = self._question(example)
                if key in self._journal and (line := self._journal.get(key))["h"] == content:
                    kept.append(Reply(place, line.get("a"), line.get("p"), line.get("t")))
                else:
                    places.append((place, key, content))
                    yield example

        for reply in self._target.replies(waiting()):
            place, key, content = places[reply.index]
            self._journal.add(key, content, reply)
            yield dataclasses.replace(reply, index=place)
            yield from kept
            kept.clear()
        yield from kept

    def _question(self, example: Example) -> tuple[int, str]:
        """The number and the hash of a question: the request's body, and how often it was asked before."""
        body = hashlib.blake2b(self._target.body([example]), digest_size=DIGEST).digest()
        self._times[body] += 1
        found = hashlib.blake2b(body + str(self._times[body]).encode(), digest_size=DIGEST).hexdigest()
        return int(found[:13], 16), found
