"""The nodes of the Ray cluster this process is connected to: what each one has, and how to ask all of them something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD_RESOURCE = "node:__internal_head__"


@dataclass(frozen=True)
class Node:
    """One living node of a cluster."""

    id: str
    """Ray's hexadecimal node id."""
    name: str
    """How messages call it: its name if the user gave one, else its address."""
    total: Mapping[str, float] = field(default_factory=dict)
    """Resources by name: ``CPU``, ``GPU``, custom ones; ``memory`` in bytes."""
    free: Mapping[str, float] = field(default_factory=dict)
    """The part of ``total`` that nothing holds at the moment."""
    head: bool = False
    """Whether the cluster's own services run here."""


@dataclass(frozen=True)
class Reply:
    """What a function said on one node: a value, or why there is none."""

    node: Node
    value: Any = None
    problem: str | None = None


def alive_nodes() -> list[Node]:
    """The living nodes, the head first, with what is free on each at the moment."""
    import ray

    free = _free_resources()
    records = [record for record in ray.nodes() if record["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [
        Node(
            id=record["NodeID"],
            name=_name(record, alone=len(records) == 1),
            total=dict(record["Resources"]),
            free=free.get(record["NodeID"], {}),
            head=HEAD_RESOURCE in record["Resources"],
        )
        for record in records
    ]
    return sorted(nodes, key=lambda node: (not node.head, node.name, node.id))


def ask_every_node(function: Callable[..., Any], *arguments: Any, timeout: float, nodes: list[Node]) -> list[Reply]:
    """Calls ``function(*arguments)`` once on each node, at the same time, without claiming resources.

    ``function`` travels by value: it must not use names of its module, so that a node without Tunesmith can answer too.
    A node that does not answer within ``timeout`` seconds, or raises, gets a :class:`Reply` with the problem.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    references = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(*arguments)
        for node in nodes
    ]
    ready, late = ray.wait(references, num_returns=len(references), timeout=timeout)
    for reference in late:
        ray.cancel(reference, force=True)
    answered = set(ready)
    return [
        _reply(node, reference) if reference in answered else Reply(node, problem=f"no answer in {timeout:.0f} s")
        for node, reference in zip(nodes, references, strict=True)
    ]


def _reply(node: Node, reference: Any) -> Reply:
    import ray

    try:
        return Reply(node, value=ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        return Reply(node, problem=f"{type(error.cause).__name__}: {error.cause}")
    except ray.exceptions.RayError as error:
        return Reply(node, problem=str(error).strip().splitlines()[0])


def _name(record: Mapping[str, Any], alone: bool) -> str:
    """The node's own name where it has one; nodes that share an address are told apart by their port."""
    name, address = str(record.get("NodeName") or ""), str(record["NodeManagerAddress"])
    if name and name != address:
        return name
    if alone and address.startswith("127."):
        return "this machine"
    return f"{address}:{record['NodeManagerPort']}" if address.startswith("127.") else address


def _free_resources() -> dict[str, dict[str, float]]:
    # Ray has no public call that tells the free resources node by node.
    from ray._private.state import available_resources_per_node

    return dict(available_resources_per_node())  # type: ignore[no-untyped-call]
