"""Simulates a federation on the connected Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith_federated.simulation.grid import RayGrid

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe
    from tunesmith_federated.simulation.parts import Dealt


@contextmanager
def simulated(recipe: Recipe, prepared: PreparedData, parts: Dealt, folder: Path) -> Iterator[RayGrid]:
    """A grid of the dealt sites, as many at a time as the cluster has room for.

    Raises :class:`ClusterError` where there is room for none.
    """
    import ray

    from tunesmith.cluster.nodes import alive_nodes
    from tunesmith.cluster.preflight import capacity, check_resources
    from tunesmith_federated.simulation.host import Host

    section = recipe.federation
    demand = {"CPU": section.num_cpus, **({"GPU": section.num_gpus} if section.num_gpus else {})}
    check_resources(1, demand, asked_by="federation.num_cpus=")
    hosts = max(1, min(len(parts.train), capacity(alive_nodes(), demand)))
    train, holdout = ray.put(dict(parts.train)), ray.put(dict(parts.holdout))
    actor: Any = ray.remote(num_cpus=section.num_cpus, num_gpus=section.num_gpus)(Host)
    threads = max(1, int(section.num_cpus))

    grid = RayGrid(sorted(parts.train), hosts, lambda: actor.remote(prepared.path, train, holdout, str(folder), threads))
    try:
        yield grid
    finally:
        grid.close()
