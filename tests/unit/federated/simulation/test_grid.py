"""How many sites a call asks. Ray's store and its futures are stood in for: what matters is what each call carries."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_federated.flower import ArrayRecord, ConfigRecord, Message, RecordDict
from tunesmith_federated.messages import EXTRAS, MODEL, WORDS
from tunesmith_federated.simulation.grid import AHEAD, RayGrid

pytestmark = pytest.mark.unit

SITES = [f"site-{number}" for number in range(400)]


class Actor:
    """A host's handle: each call is a reference to what it was asked, answered as fast as ``seconds`` says."""

    def __init__(self) -> None:
        self.answer, self.calls, self.seconds = self, [], 1e-4
        """``answer.remote`` is this actor's own."""

    def remote(self, messages: list[Message], sites: list[str], shared: list[Any]) -> int:
        self.calls.append(messages)
        return len(self.calls) - 1

    def get(self, reference: int) -> tuple[list[Message], float]:
        messages = self.calls[reference]
        return [Message(RecordDict(), reply_to=one) for one in messages], self.seconds * len(messages)


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    ray = pytest.importorskip("ray")
    actor = Actor()
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", actor.get)
    monkeypatch.setattr(
        ray, "wait", lambda references, num_returns, timeout: (references[:num_returns], references[num_returns:])
    )
    return actor


def asked(grid: RayGrid, kind: str) -> list[str]:
    shared = {MODEL: ArrayRecord(), EXTRAS: ArrayRecord()}
    messages = [
        Message(RecordDict({WORDS: ConfigRecord({"json": "{}"}), **shared}), node, kind) for node in grid.get_node_ids()
    ]
    return list(grid.push_messages(messages))


def all_of(grid: RayGrid, ids: list[str]) -> None:
    waiting = set(ids)
    for _ in range(len(SITES)):
        waiting -= {message.metadata.reply_to_message_id for message in grid.pull_messages(waiting)}
        if not waiting:
            return
    raise AssertionError(f"{len(waiting)} sites gave no reply")


def test_the_pace_of_one_kind_says_nothing_of_the_next(actor: Actor) -> None:
    grid = RayGrid(SITES, 1, lambda: actor)
    all_of(grid, asked(grid, "query.describe"))
    assert max(len(call) for call in actor.calls) > 1, "fast answers are asked several in one call"
    begun, actor.seconds = len(actor.calls), 1.0
    ids = asked(grid, "train")
    assert [len(call) for call in actor.calls[begun:]] == [1] * AHEAD
    all_of(grid, ids)
    assert max(len(call) for call in actor.calls[begun:]) == 1, "a training of a second is asked by itself"


def test_a_late_reply_of_another_kind_says_nothing_of_this_one(actor: Actor) -> None:
    grid = RayGrid(SITES, 1, lambda: actor)
    asked(grid, "query.describe")  # what lies with the process is answered after the round has begun
    under_way = len(actor.calls)
    grid._queue.clear()  # the rest was never asked
    asked(grid, "train")
    list(grid.pull_messages([]))
    assert [len(call) for call in actor.calls[under_way:]] == [1] * (len(actor.calls) - under_way)
    assert len(actor.calls) > under_way
