"""Who takes part: by the name that a site's key has, and without waiting for one that says nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from flwr.proto.node_pb2 import NodeInfo

from support.federation import LocalGrid
from tunesmith.errors import DataError, UserError
from tunesmith.tasks import load_task
from tunesmith_federated import roster
from tunesmith_federated.codec import encode
from tunesmith_federated.flower import Message
from tunesmith_federated.messages import replying
from tunesmith_federated.protocol import Ask, Reply
from tunesmith_federated.roster import Roster, gather, merged

pytestmark = pytest.mark.unit

ASK = Ask("describe", "job", 0, 3, "", "")


class Saying(LocalGrid):
    """Nodes that call themselves what they like. ``registered``: what the federation calls them, where it knows."""

    def __init__(self, said: dict[int, str], registered: dict[int, str] | None = None) -> None:
        super().__init__([])
        self.said, self.registered = said, registered or {}
        self.online = set(said)
        self.silent: set[int] = set()
        self.pushed: list[int] = []
        self.held: dict[str, Message] = {}

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, name=self.registered.get(node)) for node in sorted(self.online)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.pushed.append(node)
            ids.append(f"question-{node}-{len(self.pushed)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            reply = replying(Reply(self.said[node], "describe", "job", 0), encode({}), encode({}), message)
            (self.held if node in self.silent else self._replies)[ids[-1]] = reply
        return ids

    def speak(self) -> None:
        """Those that were silent say what they had to."""
        self._replies |= self.held
        self.held = {}


def test_a_site_cannot_take_anothers_name() -> None:
    grid, found = Saying({1: "a", 2: "a"}, {1: "a", 2: "b"}), Roster()
    found.refresh(grid, ASK, 5)
    assert found.nodes == {"a": 1}
    assert found.refused == {"b": "it calls itself 'a', and its key is that of b"}


def test_where_nobody_knows_names_the_first_has_it() -> None:
    grid, found = Saying({1: "a", 2: "a"}), Roster()
    found.refresh(grid, ASK, 5)
    assert found.nodes == {"a": 1}
    assert found.refused == {"node-2": "another node has joined as a already"}


def test_a_site_whose_key_is_renewed_takes_part_at_its_new_node() -> None:
    grid, found = Saying({1: "a", 2: "b", 3: "a"}, {1: "a", 2: "b", 3: "a"}), Roster()
    grid.online = {1, 2}
    found.refresh(grid, ASK, 5)
    grid.online = {2, 3}
    found.refresh(grid, ASK, 5)
    assert (found.online(), found.refused) == ({"a": 3, "b": 2}, {})


def test_a_silent_site_is_waited_for_once_and_counts_when_it_speaks() -> None:
    grid, found = Saying({1: "a", 2: "b", 3: "c"}), Roster()
    grid.silent = {3}
    begun = time.monotonic()
    found.refresh(grid, ASK, 3600, patience=0.2)
    waited = time.monotonic() - begun
    for _ in range(3):
        found.refresh(grid, ASK, 3600, patience=3600)
    assert 0.2 <= waited < 60
    assert (list(found.online()), found.silent()) == (["a", "b"], ["node-3"])
    grid.speak()
    found.refresh(grid, ASK, 3600, patience=3600)
    assert (list(found.online()), found.silent(), grid.pushed) == (["a", "b", "c"], [], [1, 2, 3])


def test_a_silent_site_is_asked_anew_when_its_question_is_good_no_more_or_it_was_gone() -> None:
    grid, found = Saying({1: "a", 2: "b"}), Roster()
    grid.silent = {2}
    found.refresh(grid, ASK, 0.05, patience=0.01)
    time.sleep(0.1)
    found.refresh(grid, ASK, 3600, patience=0.01)
    for online in ({1}, {1, 2}):
        grid.online = online
        found.refresh(grid, ASK, 3600, patience=0.01)
    assert grid.pushed == [1, 2, 2, 2]


def test_enrolment_waits_for_each_site_that_is_there_until_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "WAIT", 0.02)
    grid, found = Saying({1: "a", 2: "b", 3: "c"}), Roster()
    grid.silent = {3}
    begun = time.monotonic()
    gather(grid, found, ASK, 2, 0.3, lambda _: None, patience=0.02)
    assert 0.3 <= time.monotonic() - begun < 60
    assert list(found.online()) == ["a", "b"]
    with pytest.raises(UserError, match=r"2 of at least 3 sites take part after 0\.3 s: a, b\n  node-3: it has not yet said"):
        gather(grid, found, ASK, 3, 0.3, lambda _: None, patience=0.02)
    waited: list[int] = []

    def waiting(there: int) -> None:
        waited.append(there)
        grid.speak()

    gather(grid, found, ASK, 2, 3600, waiting, patience=0.02)
    assert (waited, list(found.online())) == ([2], ["a", "b", "c"])


def test_statistics_that_do_not_go_together_name_a_site() -> None:
    task = load_task("text-classification")
    said: Any = {
        name: replace(Reply(name, "describe", "job", 0), statistics={"stats": {"labels": {"flu": count}}})
        for name, count in (("a", 40), ("b", "40"), ("c", 3))
    }
    with pytest.raises(DataError, match=r"what b says that it holds does not go with(.|\n)*go on without b"):
        merged(task, said)
