"""Flower's grid, for a server that waits for no single site.

Flower's own ``pull_messages`` (1.41) takes a reply once it is announced and waits for its pieces then, from 1 s up to two
hours: a site on a slow line, or one that announces a reply and never sends it, would hold up the round and the replies of all
others. Here a reply counts once all its pieces are there, and until then the next one is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith_federated.flower import Error, Grid, Message, RecordDict

# isort: split
from flwr.app import Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid.http_grid import HttpGrid

if TYPE_CHECKING:
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.proto.node_pb2 import NodeInfo

MOST_COMING = 1000
"""Announced replies that are remembered beside those that are asked about: SuperLink announces each once, and another call may
yet ask about it (a new site says what it holds while a round is under way). Of each the names of its pieces are kept."""
NOT_WHOLE = "its reply was announced and did not arrive whole"


def patient(grid: Grid) -> Grid:
    """The same grid where it is one in memory, whose replies are whole as they come."""
    return PatientGrid(grid) if isinstance(grid, HttpGrid) else grid


@dataclass
class _Coming:
    """A reply that is announced."""

    tree: ObjectTree
    missing: str
    """A piece that was not there when it was last looked for. A sender's last is the message itself, so it begins with that."""


class PatientGrid(Grid):
    """Over a line to SuperLink. ``pull_messages`` fetches a reply as it is taken: a server's memory holds no more at once."""

    def __init__(self, line: HttpGrid) -> None:
        self._line = line
        self._coming: dict[str, _Coming] = {}

    def set_run(self, run: Any) -> None:
        """As Flower's."""
        self._line.set_run(run)

    @property
    def run(self) -> Any:
        """As Flower's."""
        return self._line.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message, as Flower made them once."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """As Flower's."""
        return self._line.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """As Flower's: of each its id, and the name that its key is registered under."""
        return self._line.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As Flower's."""
        return self._line.push_messages(messages)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's, which waits."""
        return self._line.send_and_receive(messages, timeout=timeout)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are there with all their pieces, one by one. It waits for nothing."""
        wanted = set(message_ids)
        self._forget(wanted)
        silent = wanted - self._coming.keys()
        if silent:
            announced = self._line._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(silent)))
            for message, tree in zip(announced.messages_list, announced.message_object_trees, strict=True):
                self._coming[message.metadata.reply_to_message_id] = _Coming(tree, tree.object_id)
        for asked, one in [(asked, one) for asked, one in self._coming.items() if asked in wanted]:
            found = self._whole(asked, one)
            if found is not None:
                del self._coming[asked]
                yield found

    def _forget(self, wanted: set[str]) -> None:
        """Of announced replies that are not asked about now, the oldest go where there are too many."""
        others = [asked for asked in self._coming if asked not in wanted]
        for asked in others[:-MOST_COMING]:
            del self._coming[asked]

    def _whole(self, asked: str, one: _Coming) -> Message | None:
        """The reply with its pieces; None while one is under way. What is there of it meanwhile stays with SuperLink."""
        run_id, client = self._line.run.run_id, self._line._runtime_client
        pull = make_pull_object_fn_protobuf(client.PullObject, self._line.node, run_id)
        under_way: list[str] = []

        def look(piece: str) -> bytes:
            try:
                return pull(piece)
            except ObjectUnavailableError:
                under_way.append(piece)
                raise

        try:
            look(one.missing)
            held = pull_objects([each.object_id for each in iterate_object_tree(one.tree)], look, max_tries_per_object=1)
        except (ObjectUnavailableError, ObjectPullError):
            if under_way:
                one.missing = under_way[0]
                return None
            return self._lost(asked, run_id, NOT_WHOLE)
        received = ConfirmMessageReceivedRequest(node=self._line.node, run_id=run_id, message_object_id=one.tree.object_id)
        client.ConfirmMessageReceived(received)
        try:
            message = inflate_object_from_contents(one.tree.object_id, held)
        except Exception as error:  # what a site has made up must not end the server
            return self._lost(asked, run_id, f"its reply cannot be read ({type(error).__name__})")
        if not isinstance(message, Message) or message.metadata.reply_to_message_id != asked:
            return self._lost(asked, run_id, "its reply is none to what it was asked")
        message.metadata.__dict__["_message_id"] = one.tree.object_id
        return message

    def _lost(self, asked: str, run_id: int, why: str) -> Message:
        """In place of a reply that is none, or whose pieces SuperLink threw away since no other followed for 3 minutes."""
        here = self._line.node.node_id
        metadata = Metadata(run_id, "", here, here, asked, "", time.time(), 0, SYSTEM_MESSAGE_TYPE)
        return make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, why))
