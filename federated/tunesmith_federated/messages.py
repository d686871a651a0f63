"""Words and tensors as Flower's messages, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tunesmith_federated.flower import ArrayRecord, ConfigRecord, Message, RecordDict
from tunesmith_federated.protocol import Ask, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WORDS, MODEL, EXTRAS = "words", "model", "extras"
TYPES: Mapping[str, str] = {"describe": "query.describe", "train": "train", "evaluate": "evaluate"}
"""Flower's message type of each kind."""


Held = TypeVar("Held")
"""What a record's tensors are made into."""


@dataclass(frozen=True)
class Parcel(Generic[Held]):
    """What came with one message."""

    words: str
    """JSON of an :class:`Ask` or a :class:`Reply`."""
    model: Held
    """The model, or what was added to it."""
    extras: Held


def asking(ask: Ask, node: int, model: ArrayRecord, extras: ArrayRecord, ttl: float) -> Message:
    """The message that asks a site; it and its reply are good for ``ttl`` seconds."""
    content = RecordDict({WORDS: ConfigRecord({"json": ask.to_json()}), MODEL: model, EXTRAS: extras})
    return Message(content, node, TYPES[ask.kind], ttl=ttl, group_id=str(ask.round))


def replying(reply: Reply, update: ArrayRecord, extras: ArrayRecord, to: Message) -> Message:
    """The message that answers."""
    content = RecordDict({WORDS: ConfigRecord({"json": reply.to_json()}), MODEL: update, EXTRAS: extras})
    return Message(content, reply_to=to)


def opened(message: Message, read: Callable[[ArrayRecord], Held]) -> Parcel[Held]:
    """What came with a message, its tensors as ``read`` makes them.

    Raises :class:`ValueError` for one that is not ours, or damaged.
    """
    content = message.content
    try:
        words, model, extras = content[WORDS]["json"], content[MODEL], content[EXTRAS]
    except KeyError as error:
        raise ValueError(f"the message lacks {error}") from error
    if not (isinstance(words, str) and isinstance(model, ArrayRecord) and isinstance(extras, ArrayRecord)):
        raise ValueError("the message's records are of the wrong kind")  # noqa: TRY004  # what came, not what was called
    return Parcel(words, read(model), read(extras))
