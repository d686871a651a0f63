"""What a site remembers of its line, so that one that was killed is back at once and nobody waits for its answer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tunesmith_federated.deployment.certificates import write_secret

if TYPE_CHECKING:
    from tunesmith_federated.deployment.fleet import Fleet
    from tunesmith_federated.flower import Message

LOST = "the site ended while it worked on this; it is back"


class Kept:
    """Two small files in the site's state folder: as whom it was online, and what it had not answered."""

    def __init__(self, folder: Path) -> None:
        self._node, self._message = folder / "online.json", folder / "unanswered.bin"

    def online(self, node_id: int) -> None:
        """The site is online as this node."""
        write_secret(self._node, json.dumps(node_id).encode())

    def offline(self) -> None:
        """It has left in order."""
        self._node.unlink(missing_ok=True)

    def received(self, message: Message) -> None:
        """It works on this now."""
        from tunesmith_federated.deployment.fleet import header

        write_secret(self._message, header(message))

    def answered(self) -> None:
        """It works on nothing."""
        self._message.unlink(missing_ok=True)

    def leave_as_before(self, line: Fleet) -> None:
        """What a process of this site that was killed could not do: say that it cannot answer, and go offline.

        Otherwise SuperLink counts it as online for a minute and lets nobody else in, and the round waits until its end. Raises
        :class:`OSError` where the files stay, once all of that is said.
        """
        from tunesmith_federated.deployment.fleet import from_header
        from tunesmith_federated.flower import Error, Message

        try:
            node_id = int(json.loads(self._node.read_bytes()))
        except (OSError, ValueError):
            return
        with contextlib.suppress(OSError, ValueError, httpx.HTTPStatusError):
            message = from_header(self._message.read_bytes())
            line.resume(node_id)
            line.send(Message(Error(code=1, reason=LOST), reply_to=message), 0.0)
        with contextlib.suppress(OSError):  # of which the other file tells
            self.answered()
        with contextlib.suppress(httpx.HTTPStatusError):
            line.deactivate(node_id)
        self.offline()
