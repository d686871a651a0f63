"""The application for Ray Serve: a deployment for each version of a model, and the front door before them.

``build`` is what ``serve.yaml`` names as its ``import_path``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from grpc import RpcError
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import Example
from tunesmith_serving import door, front
from tunesmith_serving.describe import Description
from tunesmith_serving.guard import log_model, log_to
from tunesmith_serving.keys import KeyFile
from tunesmith_serving.problems import busy
from tunesmith_serving.reply import Answered
from tunesmith_serving.shelf import Served

LOST = (ActorDiedError, ActorUnavailableError, RayActorError, DeploymentUnavailableError, RpcError)
"""What a call ends with where its replica died: the same request may be asked again, as it changes nothing."""
AGAIN = 0.05
"""Seconds before a lost request is asked again, doubled each time up to a second."""
READY_WITHIN = 2.0
"""Seconds in which a model that is ready says so."""
SPARE = 64
"""Requests that the door takes beyond those of all queues, so that health checks and refusals always come through."""


class Model:
    """One version of a model in a process of its own."""

    def __init__(self, name: str, version: str, folder: str, settings: dict[str, Any], threads: int | None) -> None:
        """Load the model and warm it up; Serve sends requests only afterwards."""
        front.stay_on_loopback()
        from tunesmith_serving.engine import Engine

        self.engine = Engine.load(folder, name, version, ServingSection(**settings), threads)

    async def describe(self) -> Description:
        """What the model says of itself."""
        return self.engine.description

    async def answer(self, examples: Sequence[Example], timeout: float) -> Answered:
        """The answers; lateness is told and not raised, as Serve would log it as a failure."""
        try:
            return await self.engine.answer(examples, timeout)
        except TimeoutError:
            return Answered(late=True)


class HandleBackend:
    """A model behind a handle of Serve. A request whose replica dies is asked again, until its time is over."""

    def __init__(self, handle: DeploymentHandle[Any], description: Description) -> None:
        self.handle, self.description = handle, description
        self._ready_until = 0.0

    async def answer(self, examples: Sequence[Example], timeout: float | None = None) -> Answered:
        """What the model says. Raises :class:`TimeoutError`, or :class:`Refused` (429)."""
        pause, end = AGAIN, time.monotonic() + (timeout or 30.0)
        while True:
            rest = end - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            try:
                told: Answered = await self.handle.answer.remote(examples, rest)
            except BackPressureError as error:
                raise busy(self.description.name, 0) from error
            except LOST:
                await asyncio.sleep(min(pause, max(0.0, end - time.monotonic())))
                pause = min(1.0, 2 * pause)
                continue
            if told.late:
                raise TimeoutError
            return told

    async def ready(self) -> bool:
        """Whether a replica answers; believed for a second."""
        if time.monotonic() < self._ready_until:
            return True
        try:
            await asyncio.wait_for(self.handle.describe.remote(), READY_WITHIN)
        except (TimeoutError, BackPressureError, *LOST):
            return False
        self._ready_until = time.monotonic() + 1.0
        return True


class Door:
    """The front door as a deployment of Serve."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, keys: str, log: str | None, settings: list[dict[str, Any]], *handles: DeploymentHandle[Any]
    ) -> None:
        """Wait until every model is there."""
        front.stay_on_loopback()
        log_to(log)
        about = await asyncio.gather(*(handle.describe.remote() for handle in handles))
        for one in about:
            log_model(one)
        served = [
            Served(HandleBackend(handle, description), ServingSection(**values))
            for handle, description, values in zip(handles, about, settings, strict=True)
        ]
        # Ray adds X-Request-ID to every answer itself.
        self._app = door.build(served, KeyFile(keys), echo_id=False)

    def __serve_build_asgi_app__(self) -> Any:
        """The ASGI application, which Serve asks for once the door is made."""
        return self._app


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a configuration as :func:`tunesmith_serving.plan.configuration` makes it."""
    models = args["models"]
    settings = [ServingSection(**one["settings"]) for one in models]
    handles = [_model(one, values, args.get("threads")) for one, values in zip(models, settings, strict=True)]
    ingress: Any = serve.ingress()
    deployed = serve.deployment(
        name="door",
        num_replicas=1,
        max_ongoing_requests=SPARE + sum(one.max_queue for one in settings),
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=max(one.drain_s for one in settings) + 5,
        health_check_period_s=5,
    )(ingress(Door))
    app: serve.Application = deployed.bind(args["keys"], args.get("log"), [one["settings"] for one in models], *handles)
    return app


def _model(one: dict[str, Any], settings: ServingSection, threads: int | None) -> serve.Application:
    scale: dict[str, Any] = {"num_replicas": settings.num_replicas}
    if settings.max_replicas and settings.max_replicas > settings.num_replicas:
        target = max(1, settings.max_batch_size // 2)
        scale = {
            "autoscaling_config": {
                "min_replicas": settings.num_replicas,
                "max_replicas": settings.max_replicas,
                "target_ongoing_requests": target,
            }
        }
    deployed = serve.deployment(
        name=f"{one['name']}-{one['version']}",
        max_ongoing_requests=settings.max_queue + SPARE,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        graceful_shutdown_timeout_s=settings.drain_s + 5,
        health_check_period_s=5,
        max_constructor_retry_count=2,
        max_surge_percent=100,
        **scale,
    )(Model)
    app: serve.Application = deployed.bind(one["name"], one["version"], one["folder"], one["settings"], threads)
    return app
