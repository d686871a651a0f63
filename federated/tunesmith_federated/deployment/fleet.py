"""The site's half of the adapter to Flower (1.41): its fleet routes, protobuf over HTTPS.

Flower's own SuperNode knows no client certificate, starts a process for each message and polls every 3 seconds; a site speaks
with the fleet itself, therefore, through :class:`Fleet`, and needs no further process and no open port.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass

from tunesmith_federated import flower
from tunesmith_federated.flower import Message

# isort: split
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

CALL_TIMEOUT = 60.0
"""Seconds for one request; a piece of a tensor has at most 5 MB."""
FIRST_LOOK, LAST_LOOK = 0.1, 2.0
"""Seconds between two looks for a piece that is announced and not yet there. Flower's own first one is 1 s."""
HEARTBEAT_SECONDS = HEARTBEAT_DEFAULT_INTERVAL
"""A node is offline to SuperLink when so long nothing was heard of it, twice."""
MAYBE_LOST = (
    "the server took no piece of the reply after the line had broken: it had them all, or the line was away for more than "
    "3 minutes and the reply is lost, in which case this site's part of the round does not count"
)

log = logging.getLogger("tunesmith.site")


@dataclass
class _Going:
    """A reply that is announced. SuperLink gives it no second place once the server knows of it."""

    reply: str
    session: str
    missing: set[str]


class Fleet:
    """A site's line to the fleet: mutual TLS with the site's certificate, each request signed with its node key."""

    def __init__(self, address: str, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = public_key_to_bytes(key.public_key())
        self._client = FleetHttpClient(
            f"https://{address}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
            verify=context,
            timeout=CALL_TIMEOUT,
        )
        self.node = Node()
        self._coming: tuple[int, ObjectTree] | None = None
        self._going: _Going | None = None

    @property
    def node_id(self) -> int:
        """0 before :meth:`activate`."""
        return int(self.node.node_id)

    def activate(self) -> int:
        """Be online; the node's id, the same for the same key."""
        request = ActivateNodeRequest(public_key=self._key, heartbeat_interval=HEARTBEAT_SECONDS)
        self.node = Node(node_id=self._client.ActivateNode(request).node_id)
        return self.node_id

    def resume(self, node_id: int) -> None:
        """Speak as a node that is online already."""
        self.node = Node(node_id=node_id)

    def heartbeat(self) -> bool:
        """Whether SuperLink still counts the node."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_SECONDS)
        return bool(self._client.SendNodeHeartbeat(request).success)

    def deactivate(self, node_id: int | None = None) -> None:
        """Be offline at once, instead of after the heartbeats. ``node_id`` is what :meth:`activate` gave."""
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id if node_id is None else node_id))

    def receive(self) -> Message | None:
        """The oldest message for this node with all that it carries, or None. Where the line broke, the next call goes on.

        Raises :class:`ValueError` where it cannot be had any more, or is not whole.
        """
        if self._coming is None:
            response = self._client.PullMessages(PullMessagesRequest(node=self.node))
            if not response.messages_list:
                return None
            self._coming = response.messages_list[0].metadata.run_id, response.message_object_trees[0]
        run_id, tree = self._coming
        try:
            message = pull_and_inflate_object_from_tree(
                tree,
                make_pull_object_fn_protobuf(self._client.PullObject, self.node, run_id),
                make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, self.node, run_id),
                return_type=Message,
                initial_backoff=FIRST_LOOK,
                backoff_cap=LAST_LOOK,
            )
        except httpx.HTTPError as error:  # SuperLink announces a message once, and has its pieces until they are confirmed
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                self._coming = None
            raise
        except (ObjectPullError, UnexpectedObjectContentError, TypeError) as error:
            self._coming = None
            raise ValueError(str(error)) from error
        self._coming = None
        message.metadata.__dict__["_message_id"] = tree.object_id  # its own id is no part of what it is hashed over
        return message

    def send(self, reply: Message, seconds: float) -> None:
        """Send a reply; ``seconds`` is how long it took to make. Given again after an error, it goes on where it was."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            again = self._going is not None and self._going.reply == reply.object_id
            if not again:
                self._going = self._announced(reply, seconds)
            going = self._going
            assert going is not None
            asked, refused = set(going.missing), list[str]()
            push = make_push_object_fn_protobuf(self._client.PushObject, self.node, reply.metadata.run_id, going.session)

            def put(piece: str, content: bytes) -> None:
                try:
                    push(piece, content)
                except ObjectPushError:
                    if not again:
                        raise
                    refused.append(piece)
                going.missing.discard(piece)  # refused the second time: it had come, and only the answer was lost

            try:
                objects = get_all_nested_objects(reply)
                push_objects(objects, put, object_ids_to_push=asked, keep_objects=True)
            except ObjectPushError as error:  # a piece took longer than SuperLink keeps a place for it
                self._going = None
                raise httpx.WriteTimeout(str(error)) from error
            self._going = None
            if asked and len(refused) == len(asked):
                log.warning("%s", MAYBE_LOST)

    def _announced(self, reply: Message, seconds: float) -> _Going:
        bare = message_to_proto(flower.without_content(reply)) if reply.has_content() else message_to_proto(reply)
        request = PushMessagesRequest(
            node=self.node,
            messages_list=[bare],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[seconds],
        )
        response = self._client.PushMessages(request)
        return _Going(reply.object_id, response.session_id, set(response.objects_to_push))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def header(message: Message) -> bytes:
    """All of a message but what it carries: enough to answer it with."""
    return bytes(message_to_proto(flower.without_content(message)).SerializeToString())


def from_header(text: bytes) -> Message:
    """The message that is to be answered. Raises :class:`ValueError` where it is none."""
    try:
        return message_from_proto(ProtoMessage.FromString(text))
    except Exception as error:  # protobuf's DecodeError, and what Flower makes of half a message
        raise ValueError("no header of a message") from error
