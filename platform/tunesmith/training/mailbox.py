"""How workers talk to the driver: one small Ray actor beside it, which the driver empties.

It also remembers what ends training for good: an error that no restart can mend (a user's mistake, out of memory), which the
driver raises, or the driver's word to stop. Workers that Ray Train restarts after it do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.training.spec import Event

NAMESPACE = "tunesmith"


class Ending:
    """What an actor beside the driver remembers of how training ends."""

    def __init__(self) -> None:
        self._failure: BaseException | None = None
        self._controller: Any = None

    def fail(self, error: BaseException) -> None:
        """End training for good; the first reason is kept."""
        self._failure = self._failure or error

    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self._failure is not None

    def introduce(self, controller: Any) -> None:
        """Keep the handle of Ray Train's controller, by which training can be ended at once."""
        self._controller = controller

    def controller(self) -> Any:
        """That handle; None before there is one."""
        return self._controller


class Mailbox(Ending):
    """The actor's class. Its methods run one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []

    def put(self, event: Event) -> bool:
        """Add an event; returns whether the sender may go on."""
        self._events.append(event)
        return self._failure is None

    def take(self) -> tuple[list[Event], BaseException | None]:
        """The events since the last call, and the error that ended training, if one did."""
        events, self._events = self._events, []
        return events, self._failure


class Stopped(Exception):
    """Training was ended elsewhere: by the user, or by another worker's error."""


class Sender:
    """Sends events without waiting for the driver. Raises :class:`Stopped` soon after training has ended for good."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._under_way: list[Any] = []

    def __call__(self, event: Event) -> None:
        """Send an event."""
        import ray

        self._under_way.append(self._mailbox.put.remote(event))
        there, self._under_way = ray.wait(self._under_way, num_returns=len(self._under_way), timeout=0)
        self._check(there)

    def flush(self) -> None:
        """Wait until everything sent has arrived."""
        there, self._under_way = self._under_way, []
        self._check(there)

    def _check(self, answers: list[Any]) -> None:
        import ray

        if not all(ray.get(answers)):
            raise Stopped


def open_mailbox(name: str, kind: type[Ending] = Mailbox, *arguments: Any) -> Any:
    """A mailbox of that kind on the driver's own node, found by ``name``; it ends with the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(kind).options(**options).remote(*arguments)


def find_mailbox(name: str) -> Any:
    """The mailbox of that name, from a worker."""
    import ray

    return ray.get_actor(name, namespace=NAMESPACE)
