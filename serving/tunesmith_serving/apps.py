"""Serve's applications: a service's models and its door are started here, told apart from others', and ended in order."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.cluster.nodes import Node
from tunesmith.cluster.ports import LOOPBACK
from tunesmith.errors import ClusterError, ModelError
from tunesmith_serving.plan import APPLICATION, START_WITHIN, Planned, application, is_ours, listed, places


def deploy(models: Sequence[Planned], keys: str, port: int, log: str | None = None, cpus: int | None = None) -> None:
    """Start Serve, the models, then the door. Raises :class:`ModelError` where a model cannot be loaded."""
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    from tunesmith_serving import deployments

    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=LOOPBACK, port=port))
    before, plan = running()[1], listed(models, cpus)
    applications = {application(one["name"], one["version"]): deployments.model(one) for one in plan["models"]}
    start(applications)
    drain = max(one.settings.drain_s for one in models)
    door = {"keys": keys, "log": log, "places": places(models), "drain_s": drain, "plan": plan}
    start({APPLICATION: deployments.door(door)})
    for name in before - {APPLICATION, *applications}:
        serve.delete(name)


def start(applications: Mapping[str, Any], within: float = START_WITHIN) -> None:
    """Start applications and wait until they run; the door's takes the requests. What does not come up is taken away again.

    Raises:
        ModelError: a model cannot be loaded.
        ClusterError: it did not come up in time; the message has what Serve says.
    """
    from ray import serve

    targets = [
        serve.RunTarget(app, name=name, route_prefix="/" if name == APPLICATION else None) for name, app in applications.items()
    ]
    up, deadline, before = False, time.monotonic() + within, running()[1]
    try:
        serve.run_many(targets, wait_for_applications_running=False)
        while not up:
            found = {name: one for name, one in serve.status().applications.items() if name in applications}
            failed = next((one for one in found.values() if one.status in ("DEPLOY_FAILED", "UNHEALTHY")), None)
            if failed is not None:
                told = [failed.message, *(one.message for one in failed.deployments.values())]
                raise ModelError(f"the service did not start: {_why(chr(10).join(told))}")
            up = len(found) == len(applications) and all(one.status == "RUNNING" for one in found.values())
            if time.monotonic() > deadline:
                said = [one.message for app in found.values() for one in app.deployments.values() if one.message]
                raise ClusterError(f"not ready within {within:g} s. {' '.join(said)}".strip())
            time.sleep(0 if up else 0.1)
    finally:
        if not up:
            with quiet():
                for name in applications.keys() - before:
                    serve.delete(name)


def _why(said: str) -> str:
    """The last line of what a replica's constructor said, which names the mistake."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line and not line.startswith("File")]
    return (told or lines or ["no reason given"])[-1]


def end_serve() -> None:
    """End Ray Serve and all its processes, which drain first."""
    from ray import serve

    shutdown: Callable[[], None] = serve.shutdown
    shutdown()


def end(folder: Path | None, drain: float) -> None:
    """Let nobody in, answer those who are, then end everything."""
    from tunesmith_serving import front

    if folder is None or not front.close(folder, drain + 5):
        from ray import serve

        serve.delete(APPLICATION)  # Serve would end the models beside the door that still needs them
    end_serve()


def running() -> tuple[list[str], set[str]]:
    """Applications of the cluster's Serve: those that are not ours, and ours."""
    from ray import serve

    names = set(serve.status().applications)
    return sorted(name for name in names if not is_ours(name)), {name for name in names if is_ours(name)}


def listens_at() -> int | None:
    """The port of the cluster's Serve, which Ray never changes while it runs; None where none does."""
    context: Any = importlib.import_module("ray.serve.context")  # there is no public way to it
    client = context._get_global_client(raise_if_no_controller_running=False)
    return None if client is None else int(client.http_config.port)


def free(nodes: Sequence[Node]) -> tuple[float, float]:
    """CPUs and GPUs that nothing holds."""
    return sum(node.free.get("CPU", 0) for node in nodes), sum(node.free.get("GPU", 0) for node in nodes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What fails while a service ends is of no use to anybody."""
    with contextlib.suppress(Exception):
        yield
