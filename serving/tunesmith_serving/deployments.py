"""The applications for Ray Serve: one for each version of a model, and the front door before them.

``model`` and ``door`` are what ``serve.yaml`` names as ``import_path``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from grpc import RpcError
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from ray.experimental import internal_kv
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import Example
from tunesmith_serving import front
from tunesmith_serving.describe import Description
from tunesmith_serving.door import build as door_app
from tunesmith_serving.guard import log_model, log_to
from tunesmith_serving.keys import KeyFile
from tunesmith_serving.metrics import Metrics
from tunesmith_serving.mirror import Mirror
from tunesmith_serving.plan import APPLICATION, DOOR, MODEL, START_WITHIN, application
from tunesmith_serving.problems import busy
from tunesmith_serving.reply import Answered
from tunesmith_serving.rollout import Rollout
from tunesmith_serving.shelf import Served, Shelf

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
    """The front door as a deployment of Serve: a stable router, whose models change while it answers."""

    async def __init__(self, keys: str, log: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        """Nothing is served yet: Serve gives the list of models next, and sends requests only afterwards."""
        front.stay_on_loopback()
        log_to(log)
        metrics = Metrics()
        self._shelf = Shelf([], metrics, Mirror(metrics, log.removesuffix(".jsonl") + ".pairs.jsonl" if log else None))
        self._plan: dict[str, Any] = {}
        self._made: dict[str, Served] = {}
        # Ray adds X-Request-ID to every answer itself.
        self._app = door_app(self._shelf, KeyFile(keys), echo_id=False)

    def __serve_build_asgi_app__(self) -> Any:
        """The ASGI application, which Serve asks for once the door is made."""
        return self._app

    async def reconfigure(self, plan: dict[str, Any]) -> None:
        """Serve's list, as this door begins or ``serve deploy`` has changed it; or what verbs have made of that list since."""
        await self._put(kept(plan["id"]) or plan)

    async def change(self, plan: dict[str, Any]) -> None:
        """Serve these models from now on, and in every door that comes after this one.

        Serve's own way, a new ``user_config``, takes the door off HAProxy's list for the time of the change (Ray 2.60).
        """
        await self._put(plan)
        keep(plan)

    async def told(self) -> dict[str, Any]:
        """The list of models, what each says of itself, and what has come of the rollouts."""
        return {
            "plan": self._plan,
            "descriptions": {application(*which): one.description for which, one in self._versions()},
            "tallies": {name: tally.plain() for name, tally in self._shelf.tallies.items()},
        }

    async def settled(self, name: str, version: str, within: float) -> bool:
        """Wait until no request is held by a version that has left; whether that is so."""
        one = self._made.get(application(name, version))
        deadline = time.monotonic() + within
        while one is not None and one.open and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if one is not None and one.open:
            return False
        self._made.pop(application(name, version), None)
        return True

    async def _put(self, plan: dict[str, Any]) -> None:
        served = await asyncio.gather(*(self._served(one) for one in plan["models"]))
        self._made |= {application(one["name"], one["version"]): here for one, here in zip(plan["models"], served, strict=True)}
        self._shelf.put(served, {name: Rollout(**rollout) for name, rollout in plan["rollouts"].items()})
        self._plan = plan

    async def _served(self, one: dict[str, Any]) -> Served:
        """A version that is there already as it is, its open requests with it; or a new one, once it answers."""
        name, settings = application(one["name"], one["version"]), ServingSection(**one["settings"])
        there = dict(self._versions()).get((one["name"], one["version"]))
        if there is not None:
            there.settings = settings
            return there
        handle = serve.get_deployment_handle(MODEL, app_name=name)
        description = await described(handle)
        log_model(description)
        return Served(HandleBackend(handle, description), settings)

    def _versions(self) -> list[tuple[tuple[str, str], Served]]:
        return [((n, v), one) for n, versions in self._shelf.models.items() for v, one in versions.items()]


def kept(plan: str) -> dict[str, Any] | None:
    """What verbs have made of the list with this id, from the cluster's own store; None where they have made nothing."""
    found = internal_kv._internal_kv_get(f"plan:{plan}", namespace=APPLICATION)
    return json.loads(found) if found else None


def keep(plan: dict[str, Any]) -> None:
    """Write a changed list down there."""
    internal_kv._internal_kv_put(f"plan:{plan['id']}", json.dumps(plan), namespace=APPLICATION)


async def described(handle: DeploymentHandle[Any], within: float = START_WITHIN) -> Description:
    """What a model says of itself, once it is there. Raises :class:`TimeoutError`."""
    async with asyncio.timeout(within):
        while True:
            try:
                told: Description = await handle.describe.remote()
                return told
            except LOST:
                await asyncio.sleep(AGAIN)


def model(args: dict[str, Any]) -> serve.Application:
    """A version of a model, of an entry of the door's list (:func:`tunesmith_serving.plan.entry`)."""
    settings = ServingSection(**args["settings"])
    scale: dict[str, Any] = {"num_replicas": settings.num_replicas}
    if settings.most_replicas > settings.num_replicas:
        target = max(1, settings.max_batch_size // 2)
        scale = {
            "autoscaling_config": {
                "min_replicas": settings.num_replicas,
                "max_replicas": settings.most_replicas,
                "target_ongoing_requests": target,
            }
        }
    deployed = serve.deployment(
        name=MODEL,
        max_ongoing_requests=settings.max_queue + SPARE,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        graceful_shutdown_timeout_s=settings.drain_s + 5,
        health_check_period_s=5,
        max_constructor_retry_count=2,
        max_surge_percent=100,
        **scale,
    )(Model)
    app: serve.Application = deployed.bind(args["name"], args["version"], args["folder"], args["settings"], args["threads"])
    return app


def door(args: dict[str, Any]) -> serve.Application:
    """The front door: its file of ``keys``, its ``log``, how many requests it has ``places`` for, and ``drain_s`` at its end.

    ``plan`` is its list of models (:func:`tunesmith_serving.plan.listed`); ``serve.yaml`` gives it as ``user_config`` instead.
    """
    ingress: Any = serve.ingress()
    deployed = serve.deployment(
        name=DOOR,
        num_replicas=1,
        max_ongoing_requests=SPARE + args["places"],
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=args["drain_s"] + 5,
        health_check_period_s=5,
        user_config=args.get("plan"),
    )(ingress(Door))
    app: serve.Application = deployed.bind(args["keys"], args.get("log"))
    return app
