"""The server's end of the line: a reply counts once it is whole, holds up no other, and is what it says that it is."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node, NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from tunesmith_federated.deployment import patient
from tunesmith_federated.deployment.patient import NOT_WHOLE, PatientGrid
from tunesmith_federated.exchange import exchange
from tunesmith_federated.flower import ArrayRecord, Message, RecordDict, stand_alone, without_content
from tunesmith_federated.protocol import Ask

pytestmark = pytest.mark.unit


class SuperLink:
    """Announced replies and their pieces, as SuperLink has them: it announces each once."""

    def __init__(self) -> None:
        stand_alone()
        self.pieces: dict[str, bytes] = {}
        """Empty where a piece is announced and not there."""
        self._announced: dict[str, tuple[Any, Any]] = {}
        self.pulled: list[str] = []

    def question(self, number: int) -> Message:
        message = Message(RecordDict(), number, "train")
        message.metadata.__dict__["_message_id"] = f"question-{number}"
        return message

    def announce(self, reply: Message, to: Message, there: bool = True) -> list[str]:
        """Its pieces, the message itself last."""
        asked, tree = to.metadata.message_id, get_object_tree(reply)
        proto = message_to_proto(without_content(reply))
        proto.metadata.reply_to_message_id = asked
        self._announced[asked] = proto, tree
        objects = get_all_nested_objects(reply)
        self.pieces |= {piece: one.deflate() if there else b"" for piece, one in objects.items()}
        return list(objects)

    def push(self, messages: Iterable[Message]) -> list[str]:
        """Questions, which are answered at once."""
        ids = []
        for message in messages:
            ids.append(f"question-{message.metadata.dst_node_id}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.announce(answer(message, 1.0), message)
        return ids

    def PullMessages(self, request: Any) -> Any:  # noqa: N802  # Flower's names
        found = [self._announced.pop(asked) for asked in request.message_ids if asked in self._announced]
        return PullAppMessagesResponse(
            messages_list=[one for one, _ in found], message_object_trees=[tree for _, tree in found]
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        self.pulled.append(request.object_id)
        content = self.pieces.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None, object_available=bool(content), object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        assert request.message_object_id in self.pieces


@pytest.fixture
def link() -> SuperLink:
    return SuperLink()


@pytest.fixture
def grid(link: SuperLink) -> PatientGrid:
    run = SimpleNamespace(run_id=7)
    line: Any = SimpleNamespace(_runtime_client=link, node=Node(node_id=1), run=run, push_messages=link.push)
    return PatientGrid(line)


def answer(to: Message, value: float) -> Message:
    return Message(RecordDict({"array": ArrayRecord([np.full(3, value, np.float32)])}), reply_to=to)


def asked_of(found: Any) -> list[tuple[str, bool]]:
    return [(one.metadata.reply_to_message_id, one.has_content()) for one in found]


def test_a_reply_under_way_holds_up_no_other_and_counts_once_it_is_whole(link: SuperLink, grid: PatientGrid) -> None:
    slow, fast = link.question(2), link.question(3)
    reply = answer(slow, 1.0)
    pieces = link.announce(reply, slow, there=False)
    link.announce(answer(fast, 2.0), fast)
    ids = ["question-2", "question-3"]
    assert asked_of(grid.pull_messages(ids)) == [("question-3", True)]
    whole = {piece: one.deflate() for piece, one in get_all_nested_objects(reply).items()}
    for piece in reversed(pieces):  # the message itself first, which is what is looked for
        assert list(grid.pull_messages(["question-2"])) == []
        link.pieces[piece] = whole[piece]
    (found,) = grid.pull_messages(["question-2"])
    np.testing.assert_array_equal(found.content["array"].to_numpy_ndarrays()[0], np.ones(3, np.float32))


def test_all_that_are_there_when_the_time_is_up_count(grid: PatientGrid) -> None:
    ask = Ask("train", "job", 1, 1, "", "")
    came = exchange(grid, ask, {"a": 2, "b": 3, "c": 4}, {}, {}, timeout=0.0)
    assert sorted(name for name, _ in came) == ["a", "b", "c"]


def test_a_reply_is_fetched_as_it_is_taken(link: SuperLink, grid: PatientGrid) -> None:
    ids = link.push([link.question(2), link.question(3)])
    replies = iter(grid.pull_messages(ids))
    next(replies)
    fetched = len(link.pulled)
    assert fetched > 0
    next(replies)
    assert len(link.pulled) > fetched


def test_a_reply_that_nobody_waits_for_any_more_is_not_looked_at(link: SuperLink, grid: PatientGrid) -> None:
    late = link.question(2)
    link.announce(answer(late, 1.0), late, there=False)
    assert list(grid.pull_messages(["question-2"])) == []
    link.pulled.clear()
    assert list(grid.pull_messages(["question-3"])) == []
    assert link.pulled == []


def test_a_reply_under_way_is_found_though_others_are_asked_about_meanwhile(
    link: SuperLink, grid: PatientGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "MOST_COMING", 2)
    questions = {number: link.question(number) for number in (2, 3, 4)}
    replies = {number: answer(question, 1.0) for number, question in questions.items()}
    for number, question in questions.items():
        link.announce(replies[number], question, there=False)
        assert list(grid.pull_messages([f"question-{number}"])) == []
    other = link.question(9)
    link.announce(answer(other, 9.0), other)
    assert asked_of(grid.pull_messages(["question-9"])) == [("question-9", True)]
    for number, found in ((2, []), (3, [("question-3", True)]), (4, [("question-4", True)])):
        link.pieces |= {piece: one.deflate() for piece, one in get_all_nested_objects(replies[number]).items()}
        assert asked_of(grid.pull_messages([f"question-{number}"])) == found, "the oldest of too many are forgotten"


def test_a_reply_whose_pieces_are_thrown_away_is_lost(link: SuperLink, grid: PatientGrid) -> None:
    slow = link.question(2)
    pieces = link.announce(answer(slow, 1.0), slow, there=False)
    assert list(grid.pull_messages(["question-2"])) == []
    del link.pieces[pieces[-1]]
    (found,) = grid.pull_messages(["question-2"])
    assert (asked_of([found]), found.error.reason) == ([("question-2", False)], NOT_WHOLE)


def test_a_reply_in_the_name_of_another_is_none(link: SuperLink, grid: PatientGrid) -> None:
    own, others = link.question(2), link.question(3)
    link.announce(answer(others, 1.0), own)  # announced as the answer to its own question, and made out to another's
    (found,) = grid.pull_messages(["question-2", "question-3"])
    assert asked_of([found]) == [("question-2", False)]
    assert "none to what it was asked" in found.error.reason


def test_a_reply_that_cannot_be_read_does_not_end_the_server(link: SuperLink, grid: PatientGrid) -> None:
    own = link.question(2)
    pieces = link.announce(answer(own, 1.0), own)
    link.pieces[pieces[-1]] = b"CustomDataClass  0\0"
    (found,) = grid.pull_messages(["question-2"])
    assert (asked_of([found]), "cannot be read" in found.error.reason) == ([("question-2", False)], True)


def test_nodes_have_the_names_that_their_keys_are_registered_under() -> None:
    line: Any = SimpleNamespace(get_nodes=lambda: [NodeInfo(node_id=7, name="lyon")])
    assert [(one.node_id, one.name) for one in PatientGrid(line).get_nodes()] == [(7, "lyon")]
