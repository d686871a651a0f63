"""How workers talk to the driver: one small Ray actor beside it, which the driver empties.

It also remembers an error that no restart can mend (a user's mistake, out of memory), so that Ray Train's restarts after it do
nothing, and the driver raises what the worker raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.training.fit import Event

NAMESPACE = "tunesmith"


class Mailbox:
    """The actor's class. Its methods run one at a time."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._failure: BaseException | None = None

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def fail(self, error: BaseException) -> None:
        """Remember the first error that no restart can mend."""
        self._failure = self._failure or error

    def failure(self) -> BaseException | None:
        """That error."""
        return self._failure


def open_mailbox(name: str) -> Any:
    """A mailbox on the driver's own node, found by ``name``; it ends with the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(Mailbox).options(**options).remote()


def find_mailbox(name: str) -> Any:
    """The mailbox of that name, from a worker."""
    import ray

    return ray.get_actor(name, namespace=NAMESPACE)
