"""One question to many sites, and whatever comes back before the time is up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith_federated.codec import encode
from tunesmith_federated.messages import asking

if TYPE_CHECKING:
    from tunesmith_federated.flower import Grid, Message
    from tunesmith_federated.protocol import Ask, Tensors

POLL = 0.1
"""Seconds from one look for replies to the next, at first; doubled while none comes, up to :data:`SLOWEST_POLL`. A grid that
waits for replies itself (a simulation's) is asked again at once."""
SLOWEST_POLL = 1.0


def exchange(
    grid: Grid,
    ask: Ask,
    nodes: Mapping[str, int],
    model: Tensors,
    extras: Tensors,
    timeout: float,
    again: float | None = None,
    counted: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, Message]]:
    """Ask these sites (name → node) and yield each reply as it comes; sites that say nothing in ``timeout`` seconds are left.

    Every site gets the same records, so that an engine may send them once. A site that is online and has said nothing for
    ``again`` seconds is asked once more, then after twice as long, and so on: where it was killed as it took the question,
    nobody else would notice. A site that was only slow answers the second from what it has
    (:mod:`tunesmith_federated.deployment.here`). ``counted`` is each site's last round whose update counted, where it keeps
    something between rounds.
    """
    deadline = time.monotonic() + timeout
    sent, beside = encode(model), encode(extras)
    waiting: dict[str, str] = {}

    def push(names: list[str]) -> None:
        asks = [ask if counted is None else replace(ask, counted=counted.get(name, 0)) for name in names]
        ids = grid.push_messages(
            [asking(own, nodes[name], sent, beside, timeout) for own, name in zip(asks, names, strict=True)]
        )
        waiting.update({message_id: name for message_id, name in zip(ids, names, strict=True) if message_id})

    push(list(nodes))
    pause, patience = POLL, again
    repeat = time.monotonic() + (patience or timeout)
    while waiting:
        looked, came = time.monotonic(), False
        for message in grid.pull_messages(list(waiting)):
            came = True
            name = waiting.get(message.metadata.reply_to_message_id)
            if name is not None:
                waiting = {message_id: other for message_id, other in waiting.items() if other != name}
                yield name, message
        if looked >= deadline:  # and not sooner: to fetch what is there may take until after the deadline
            return
        now = time.monotonic()
        if patience is not None and repeat <= now < deadline:
            there = set(grid.get_node_ids())
            push(sorted({name for name in waiting.values() if nodes[name] in there}))
            patience *= 2
            repeat = now + patience
        if not came:
            time.sleep(max(0.0, min(looked + pause, deadline) - now))
        pause = POLL if came else min(2 * pause, SLOWEST_POLL)
