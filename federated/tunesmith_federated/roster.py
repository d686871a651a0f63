"""Who takes part: the sites by name, what they have, and the classes that they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.errors import UserError
from tunesmith_federated.codec import unopened
from tunesmith_federated.exchange import exchange
from tunesmith_federated.messages import opened
from tunesmith_federated.protocol import Ask, Reply

if TYPE_CHECKING:
    from tunesmith_federated.flower import Grid, Message

WAIT = 1.0
"""Seconds between two looks for sites that have yet to join."""


@dataclass
class Roster:
    """The sites that have said what they have, by name, and the nodes that they answer at."""

    nodes: dict[str, int] = field(default_factory=dict)
    said: dict[str, Reply] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Why a site, or a node that gave no name, is not among them."""
    check: Callable[[Reply], str | None] = lambda reply: None
    """Why what a site says of itself cannot be, or None."""
    _known: set[int] = field(default_factory=set)

    def refresh(self, grid: Grid, ask: Ask, timeout: float) -> None:
        """Ask every node that is new what it holds; nodes that are gone answer no more until they are back.

        One that refused and was gone since is new: its owner may have allowed what was asked.
        """
        there = set(grid.get_node_ids())
        self._known &= there | set(self.nodes.values())
        new = {f"node-{node}": node for node in sorted(there - self._known)}
        for label, message in exchange(grid, ask, new, {}, {}, timeout) if new else ():
            self._take(label, new[label], message)
        self._online = there

    def anew(self) -> None:
        """All who take part are new: what they hold is asked once more."""
        self._known -= set(self.nodes.values())
        self.nodes, self.said = {}, {}

    def online(self) -> dict[str, int]:
        """The sites that can be asked now, sorted by name."""
        return {name: node for name, node in sorted(self.nodes.items()) if node in self._online}

    def _take(self, label: str, node: int, message: Message) -> None:
        self._known.add(node)
        try:
            reply = Reply.from_json(opened(message, unopened).words) if message.has_content() else None
        except ValueError as error:
            self.refused[label] = str(error)
            return
        if reply is None:
            self._known.discard(node)  # lost before it said anything: it may come back
            self.refused[label] = failure(message)
        elif reply.refused:
            self.refused[reply.site] = reply.refused
        elif (wrong := self.check(reply)) is not None:
            self.refused[label] = wrong
        elif self.nodes.get(reply.site, node) != node and self.nodes[reply.site] in getattr(self, "_online", ()):
            self.refused[label] = f"another node has joined as {reply.site} already"
        else:
            self.nodes[reply.site], self.said[reply.site] = node, reply
            self.refused.pop(label, None)
            self.refused.pop(reply.site, None)


def failure(message: Message) -> str:
    """What Flower says of a site that could not answer."""
    reason = (message.error.reason or "").strip() if message.has_error() else ""
    return reason.splitlines()[-1] if reason else "it could not be reached"


def gather(grid: Grid, roster: Roster, ask: Ask, least: int, timeout: float, waiting: Callable[[int], None]) -> None:
    """Wait until ``least`` sites have said what they have; ``waiting`` is told how many are there, whenever that has changed.

    Raises :class:`UserError` where they have not come after ``timeout`` seconds, with what each of the others said.
    """
    deadline, told = time.monotonic() + timeout, -1
    while True:
        roster.refresh(grid, ask, max(1.0, deadline - time.monotonic()))
        if len(roster.online()) >= least:
            return
        if time.monotonic() >= deadline:
            raise UserError(too_few(roster, least, timeout))
        if told != (told := len(roster.online()) + len(roster.refused)):
            waiting(len(roster.online()))
        time.sleep(WAIT)


def too_few(roster: Roster, least: int, timeout: float) -> str:
    """That the sites that there are do not suffice, and why others are not among them."""
    there = roster.online()
    lines = [f"{len(there)} of at least {least} sites take part after {timeout:g} s: {', '.join(there) or 'none'}"]
    lines += [f"  {name}: {reason}" for name, reason in sorted(roster.refused.items())]
    return "\n".join(lines) + "\n    → Start more sites, mend what they say, or lower federation.min_sites"


def merged(task: Any, replies: Mapping[str, Reply]) -> Any:
    """The statistics of all sites together, in the order of their names."""
    return task.merge([replies[name].statistics["stats"] for name in sorted(replies)])
