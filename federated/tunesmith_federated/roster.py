"""Who takes part: the sites by name, what they have, and the classes that they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError, UserError
from tunesmith_federated.codec import encode, unopened
from tunesmith_federated.exchange import POLL, SLOWEST_POLL
from tunesmith_federated.messages import asking, opened
from tunesmith_federated.protocol import Ask, Reply

if TYPE_CHECKING:
    from tunesmith_federated.flower import Grid, Message

WAIT = 1.0
"""Seconds between two looks for sites that have yet to join."""


@dataclass(frozen=True)
class _Question:
    """One that is under way."""

    node: int
    ends: float
    """When it is good no more, in monotonic seconds."""


@dataclass
class Roster:
    """The sites that have said what they have, by name, and the nodes that they answer at.

    A real site's name is the one that the federation has registered its key under, whatever it calls itself.
    """

    nodes: dict[str, int] = field(default_factory=dict)
    said: dict[str, Reply] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Why a site, or a node that gave no name, is not among them."""
    check: Callable[[Reply], str | None] = lambda reply: None
    """Why what a site says of itself cannot be, or None."""
    _known: set[int] = field(default_factory=set)
    """Nodes that have said something."""
    _online: dict[int, str] = field(default_factory=dict)
    """Nodes that are there, with the names that they are registered under; '' where the grid knows none."""
    _asked: dict[str, _Question] = field(default_factory=dict)
    """Questions that are not answered, by the message's id."""

    def refresh(self, grid: Grid, ask: Ask, timeout: float, patience: float | None = None) -> None:
        """Ask every node that is new what it holds; nodes that are gone answer no more until they are back.

        One that refused and was gone since is new: its owner may have allowed what was asked. Those that say nothing are waited
        for ``patience`` seconds once they are asked (None: ``timeout`` seconds, as long as the question is good); what they say
        later is found by the next call, which waits for them no more.
        """
        self._online = {int(node.node_id): str(node.name) for node in grid.get_nodes()}
        self._known &= self._online.keys() | set(self.nodes.values())
        begun = time.monotonic()
        self._asked = {key: one for key, one in self._asked.items() if one.node in self._online and begun < one.ends}
        new = sorted(self._online.keys() - self._known - {one.node for one in self._asked.values()})
        if new:
            nothing = encode({})
            ids = grid.push_messages([asking(ask, node, nothing, nothing, timeout) for node in new])
            self._asked |= {key: _Question(node, begun + timeout) for key, node in zip(ids, new, strict=True) if key}
        self._hear(grid, begun + (timeout if patience is None else min(patience, timeout)) if new else begun)

    def anew(self) -> None:
        """All who take part are new: what they hold is asked once more."""
        self._known -= set(self.nodes.values())
        self.nodes, self.said, self._asked = {}, {}, {}

    def online(self) -> dict[str, int]:
        """The sites that can be asked now, sorted by name."""
        return {name: node for name, node in sorted(self.nodes.items()) if node in self._online}

    def silent(self) -> list[str]:
        """Those that are there and have not said what they hold, sorted."""
        return sorted(self._label(one.node) for one in self._asked.values())

    def _label(self, node: int) -> str:
        return self._online.get(node) or f"node-{node}"

    def _hear(self, grid: Grid, until: float) -> None:
        """Take what is there, and what comes before this time."""
        pause = POLL
        while self._asked:
            looked, came = time.monotonic(), False
            for message in grid.pull_messages(list(self._asked)):
                question = self._asked.pop(message.metadata.reply_to_message_id, None)
                if question is not None:
                    came = True
                    self._take(question.node, message)
            if looked >= until:
                return
            if self._asked and not came:
                time.sleep(max(0.0, min(looked + pause, until) - time.monotonic()))
            pause = POLL if came else min(2 * pause, SLOWEST_POLL)

    def _take(self, node: int, message: Message) -> None:
        label, registered = self._label(node), self._online.get(node, "")
        self._known.add(node)
        try:
            reply = Reply.from_json(opened(message, unopened).words) if message.has_content() else None
        except ValueError as error:
            self.refused[label] = str(error)
            return
        if reply is None:
            self._known.discard(node)  # lost before it said anything: it may come back
            self.refused[label] = failure(message)
        elif registered and reply.site != registered:
            self.refused[label] = f"it calls itself {reply.site!r}, and its key is that of {registered}"
        elif reply.refused:
            self.refused[reply.site] = reply.refused
        elif (wrong := self.check(reply)) is not None:
            self.refused[label] = wrong
        elif self.nodes.get(reply.site, node) != node and self.nodes[reply.site] in self._online:
            self.refused[label] = f"another node has joined as {reply.site} already"
        else:
            self.nodes[reply.site], self.said[reply.site] = node, reply
            self.refused.pop(label, None)
            self.refused.pop(reply.site, None)


def failure(message: Message) -> str:
    """What Flower says of a site that could not answer."""
    reason = (message.error.reason or "").strip() if message.has_error() else ""
    return reason.splitlines()[-1] if reason else "it could not be reached"


def gather(
    grid: Grid,
    roster: Roster,
    ask: Ask,
    least: int,
    timeout: float,
    waiting: Callable[[int], None],
    patience: float | None = None,
) -> None:
    """Wait until ``least`` sites have said what they have; ``waiting`` is told how many are there, whenever that has changed.

    Others that are asked by then are waited for until ``timeout`` seconds are over: whether an honest site is slow must not say
    whether it takes part. ``patience`` is for how many seconds those who are new are waited for before it is looked who else
    has come; None: until they have spoken.

    Raises :class:`UserError` where too few have come after ``timeout`` seconds, with what each of the others said.
    """
    told, deadline = -1, time.monotonic() + timeout
    while True:
        roster.refresh(grid, ask, max(1.0, deadline - time.monotonic()), patience)
        now = time.monotonic()
        if len(roster.online()) >= least:
            if not roster.silent() or now >= deadline:
                return
        elif now >= deadline:
            raise UserError(too_few(roster, least, timeout))
        if told != (told := len(roster.online()) + len(roster.refused)):
            waiting(len(roster.online()))
        time.sleep(WAIT)


def too_few(roster: Roster, least: int, timeout: float) -> str:
    """That the sites that there are do not suffice, and why others are not among them."""
    there = roster.online()
    lines = [f"{len(there)} of at least {least} sites take part after {timeout:g} s: {', '.join(there) or 'none'}"]
    said = dict.fromkeys(roster.silent(), "it has not yet said what it holds") | roster.refused
    lines += [f"  {name}: {reason}" for name, reason in sorted(said.items())]
    return "\n".join(lines) + "\n    → Start more sites, mend what they say, or lower federation.min_sites"


def merged(task: Any, replies: Mapping[str, Reply]) -> Any:
    """The statistics of all sites together, in the order of their names.

    Raises :class:`DataError` where they are not of one form, with the first site whose are of another than those before it.
    """
    stats = {name: replies[name].statistics["stats"] for name in sorted(replies)}
    try:
        return task.merge(list(stats.values()))
    except Exception as error:  # whatever a task makes of statistics that are none
        who = next((name for k, name in enumerate(stats, 1) if not _merges(task, list(stats.values())[:k])), "some site")
        raise DataError(
            f"what {who} says that it holds does not go with what the others say ({type(error).__name__}: {error})\n"
            f"    → Let the sites have the same version of Tunesmith, and of the task; or go on without {who}"
        ) from error


def _merges(task: Any, stats: list[Any]) -> bool:
    try:
        task.merge(stats)
    except Exception:
        return False
    return True
