"""The ClientApp: a message comes in, the site of this process answers.

The same app runs at a real site and in a simulation; what differs is how the process finds its sites (:data:`find`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tunesmith_federated.codec import decode, encode
from tunesmith_federated.flower import ArrayRecord, ClientApp, Context, Message
from tunesmith_federated.messages import opened, replying
from tunesmith_federated.protocol import Ask, Tensors
from tunesmith_federated.site import Answer


class Answers(Protocol):
    """A site, or one behind its owner's word."""

    def answer(self, ask: Ask, model: Tensors, sent: Tensors) -> Answer:
        """Do what is asked."""


def _this_machine(context: Context) -> Answers:
    from tunesmith_federated.deployment.here import site

    return site()


find: Callable[[Context], Answers] = _this_machine
"""Gives the site that a message is for: a real site's process has one, an actor of a simulation has many."""

read: Callable[[ArrayRecord], Tensors] = decode
"""Gives the tensors of a record. An actor of a simulation reads what all its sites are sent once; nobody writes into them."""

app = ClientApp()


def answer(message: Message, context: Context) -> Message:
    """What the site says. A message that cannot be read is an error of Flower's kind."""
    parcel = opened(message, read)
    found = find(context).answer(Ask.from_json(parcel.words), parcel.model, parcel.extras)
    return replying(found.reply, encode(found.update), encode(found.extras), message)


app.train()(answer)
app.evaluate()(answer)
app.query("describe")(answer)
