"""Flower's Grid over Ray actors: as many sites as one likes, as many at a time as there is room for.

Flower's own simulation runs at most 32 sites at a time and shuts the host's Ray down when it ends. Here Ray is left as it is
found; a process that dies is replaced, and what it was asked is asked once more.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_federated.flower import LOST, Error, Grid, Message, RecordDict, copied, stand_alone
from tunesmith_federated.messages import EXTRAS, MODEL, WORDS

AHEAD = 2
"""Calls that lie with a process: the one it is at, and the next, so that it never waits for this process."""
CALL_SECONDS = 0.2
"""What a call should take: sites that answer faster are asked several in one, since a call costs milliseconds on both sides."""
MOST = 64
"""Sites that are asked in one call."""
LOOK = 1.0
"""Seconds that one look for replies waits for the first of them; a process is given its next call once it has answered."""
TRIES = 2
"""How often a message is asked whose process died."""


@dataclass
class _Sent:
    """A message under way."""

    message: Message
    site: str
    shared: Any
    deaths: int = 0
    alone: bool = False
    """Its process died with several: it is asked by itself, to see which of them it was."""


@dataclass
class _Host:
    actor: Any
    """A handle of :class:`tunesmith_federated.simulation.host.Host`."""
    busy: dict[Any, list[_Sent]] = field(default_factory=dict)


class RayGrid(Grid):
    """Node ``i`` is the i-th of ``sites``. ``start`` makes an actor of :class:`tunesmith_federated.simulation.host.Host`."""

    def __init__(self, sites: Sequence[str], hosts: int, start: Callable[[], Any]) -> None:
        stand_alone()
        self._sites, self._start = list(sites), start
        self._hosts = [_Host(start()) for _ in range(hosts)]
        self._queue: deque[_Sent] = deque()
        self._replies: dict[str, Message] = {}
        self._kind, self._each = "", 1
        """What was asked last, and how many messages of that kind go into a call."""

    def set_run(self, run: Any) -> None:
        """There is one run."""

    @property
    def run(self) -> Any:
        """Nothing of Flower's."""
        raise AttributeError("a simulation has no Flower run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message, as Flower made them once."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """From 1."""
        return range(1, len(self._sites) + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue them. Records that messages share are put into Ray's store once."""
        import ray

        stored: dict[tuple[int, int], Any] = {}
        ids = []
        for message in messages:
            if message.metadata.message_type != self._kind:  # a site that describes itself fast does not train as fast
                self._kind, self._each = message.metadata.message_type, 1
            message.metadata.__dict__["_message_id"] = secrets.token_hex(16)
            shared = {name: message.content[name] for name in (MODEL, EXTRAS)}
            key = (id(shared[MODEL]), id(shared[EXTRAS]))
            if key not in stored:
                stored[key] = ray.put(shared)
            alone = copied(message, RecordDict({WORDS: message.content[WORDS]}))
            self._queue.append(_Sent(alone, self._sites[message.metadata.dst_node_id - 1], stored[key]))
            ids.append(message.metadata.message_id)
        self._dispatch()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there; waits a moment for the first."""
        self._collect()
        self._dispatch()
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until all are there or the time is up."""
        import time

        waiting = set(self.push_messages(messages))
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        found: list[Message] = []
        while waiting and time.monotonic() < deadline:
            came = list(self.pull_messages(waiting))
            waiting -= {message.metadata.reply_to_message_id for message in came}
            found += came
        return found

    def close(self) -> None:
        """End the actors; what is under way is dropped."""
        import ray

        for host in self._hosts:
            ray.kill(host.actor)
        self._hosts = []

    def _dispatch(self) -> None:
        """Give what waits to the processes that have the least to do."""
        while self._queue:
            host = min(self._hosts, key=lambda one: len(one.busy))
            if len(host.busy) >= AHEAD:
                return
            call = self._next_call()
            messages, sites = [one.message for one in call], [one.site for one in call]
            host.busy[host.actor.answer.remote(messages, sites, [call[0].shared])] = call

    def _next_call(self) -> list[_Sent]:
        """From the queue's head: with the same records, and not so many that another process would have nothing to do."""
        most = max(1, min(self._each, len(self._queue) // (AHEAD * len(self._hosts))))
        call = [self._queue.popleft()]
        while len(call) < most and not call[0].alone and self._queue:
            following = self._queue[0]
            if following.alone or following.shared is not call[0].shared:
                break
            call.append(self._queue.popleft())
        return call

    def _collect(self) -> None:
        import ray

        under_way = [reference for host in self._hosts for reference in host.busy]
        if not under_way:
            return
        ready, rest = ray.wait(under_way, num_returns=1, timeout=LOOK)
        more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if ready and rest else []
        for host in self._hosts:
            for reference in [*ready, *more]:
                if reference in host.busy:  # no more where its process died with another
                    self._take(host, reference)

    def _take(self, host: _Host, reference: Any) -> None:
        """Replies, an error, or the death of their process."""
        import ray

        call = host.busy[reference]
        try:
            replies, seconds = ray.get(reference)
        except ray.exceptions.RayActorError:
            self._replace(host)
            return
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            for sent in call:
                self._failed(sent, f"{type(cause).__name__}: {cause}")
        else:
            if call[0].message.metadata.message_type == self._kind:  # and not a late one of another kind
                self._each = max(1, min(MOST, int(CALL_SECONDS * len(call) / max(seconds, 1e-6))))
            for sent, reply in zip(call, replies, strict=True):
                self._replies[sent.message.metadata.message_id] = reply
        del host.busy[reference]

    def _replace(self, host: _Host) -> None:
        """A new process for one that died; what it was asked waits again, in front.

        The first call is what it was at: the others have not been tried.
        """
        import ray

        lost: list[list[_Sent]] = []
        for reference, call in host.busy.items():
            try:
                replies, _ = ray.get(reference)  # done, before it died
            except ray.exceptions.RayError:
                lost.append(call)
            else:
                self._replies |= {one.message.metadata.message_id: reply for one, reply in zip(call, replies, strict=True)}
        host.busy, host.actor = {}, self._start()
        for one in lost[0] if lost else []:
            one.deaths += len(lost[0]) == 1
            one.alone = True
        for one in reversed([one for call in lost for one in call]):
            if one.deaths < TRIES:
                self._queue.appendleft(one)
            else:
                self._failed(one, "its process died: it was killed, ran out of memory, or crashed")

    def _failed(self, sent: _Sent, reason: str) -> None:
        self._replies[sent.message.metadata.message_id] = Message(Error(LOST, reason), reply_to=sent.message)
