from __future__ import annotations

from tunesmith.errors import DataError
from tunesmith.training.mailbox import Mailbox, Stopped


def test_events_are_taken_once_and_in_order() -> None:
    mailbox = Mailbox()

    assert mailbox.put({"kind": "start"})
    assert mailbox.put({"kind": "step"})

    assert mailbox.take() == ([{"kind": "start"}, {"kind": "step"}], None)
    assert mailbox.take() == ([], None)


def test_what_ended_training_is_kept_and_senders_are_told_to_stop() -> None:
    mailbox, first = Mailbox(), DataError("one class only")
    assert not mailbox.ended()

    mailbox.fail(first)
    mailbox.fail(Stopped())

    assert mailbox.ended()
    assert not mailbox.put({"kind": "step"})
    assert mailbox.take() == ([{"kind": "step"}], first)
