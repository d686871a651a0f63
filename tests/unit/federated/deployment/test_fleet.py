"""A reply whose line broke: what is left of it is sent, and where SuperLink takes none of that, the owner is told."""

from __future__ import annotations

import logging
import ssl
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PushMessagesResponse
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from tunesmith_federated.deployment.fleet import MAYBE_LOST, Fleet
from tunesmith_federated.flower import ArrayRecord, Message, RecordDict, stand_alone

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("taken_again", "warned"), [(0, True), (1, False)])
def test_a_reply_of_which_nothing_is_taken_after_a_break_may_be_lost(
    caplog: pytest.LogCaptureFixture, taken_again: int, warned: bool
) -> None:
    stand_alone()
    question = Message(RecordDict(), 2, "train")
    question.metadata.__dict__["_message_id"] = "question"
    reply = Message(RecordDict({"array": ArrayRecord([np.zeros(3, np.float32)])}), reply_to=question)
    pieces = list(get_all_nested_objects(reply))
    broken, left = [True], [taken_again]

    def take(request: Any) -> Any:
        if broken[0]:
            raise httpx.ReadError("the line broke")
        left[0] -= 1
        return PushObjectResponse(stored=left[0] >= 0)

    line = Fleet("localhost:9", ssl.create_default_context(), ec.generate_private_key(ec.SECP384R1()))
    line.close()
    announced = PushMessagesResponse(session_id="one", objects_to_push=pieces)
    superlink: Any = SimpleNamespace(PushMessages=lambda request: announced, PushObject=take)
    line._client = superlink
    with caplog.at_level(logging.WARNING, "tunesmith.site"):
        with pytest.raises(httpx.ReadError):
            line.send(reply, 1.0)
        assert caplog.text == ""
        broken[0] = False
        line.send(reply, 1.0)
    assert (MAYBE_LOST in caplog.text) is warned
