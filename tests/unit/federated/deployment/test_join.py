"""A site stays, and answers, where its state folder cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunesmith_federated.deployment.join import NO_ROOM, _Answering
from tunesmith_federated.deployment.site_config import SiteConfig
from tunesmith_federated.flower import Message, RecordDict, stand_alone

pytestmark = pytest.mark.unit


class Line:
    """To a server that asks one thing; then the owner presses Ctrl-C."""

    def __init__(self) -> None:
        stand_alone()
        question = Message(RecordDict(), 7, "train")
        question.metadata.__dict__["_message_id"] = "question"
        self.node_id = 7
        self.questions = [question]
        self.sent: list[Message] = []
        self.left: list[int | None] = []

    def activate(self) -> int:
        return self.node_id

    def receive(self) -> Message:
        if not self.questions:
            raise KeyboardInterrupt
        return self.questions.pop()

    def send(self, reply: Message, seconds: float) -> None:
        self.sent.append(reply)

    def deactivate(self, node_id: int | None = None) -> None:
        self.left.append(node_id)

    def heartbeat(self) -> None:
        """Never in so short a time."""


def answering(config: SiteConfig) -> Line:
    line: Any = Line()
    with pytest.raises(KeyboardInterrupt):
        _Answering(config, line, lambda message, context: Message(RecordDict(), reply_to=message)).run()
    found: Line = line
    return found


def test_what_cannot_be_removed_does_not_end_the_site(site_config: Callable[..., SiteConfig]) -> None:
    config = site_config()
    for name in ("online.json", "unanswered.bin"):  # a folder cannot be unlinked, nor replaced by a file, by root either
        (config.state_dir / name).mkdir(parents=True)
    line = answering(config)
    assert [reply.error.reason for reply in line.sent] == [NO_ROOM]
    assert line.left == [None]


def test_a_site_that_was_killed_joins_again_where_it_cannot_forget_it(site_config: Callable[..., SiteConfig]) -> None:
    config = site_config()
    config.state_dir.mkdir(parents=True)
    (config.state_dir / "online.json").write_text("5", encoding="utf-8")
    (config.state_dir / "unanswered.bin").mkdir()
    line = answering(config)
    assert line.left == [5, None]
    assert len(line.sent) == 1
