"""What is to be served: runs by name and version, checked before anything starts, and the configuration made of them."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from tunesmith.cluster.ports import LOOPBACK
from tunesmith.errors import ModelError, UserError
from tunesmith.recipe.serving import ServingSection

APPLICATION = "tunesmith"
"""The front door's name in Ray Serve. Each version of a model is an application beside it, called ``tunesmith:NAME@VERSION``,
so that it comes and goes without the door."""
DOOR, MODEL = "door", "model"
"""Their deployments."""
START_WITHIN = 300.0
"""Seconds in which a service, or a new version, must be ready (20 s on two idle cores)."""
_RUN = re.compile(r"^(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:@(?P<version>[A-Za-z0-9._-]+))?=)?(?P<run>.+)$")
_OVERRIDE = "serving."


@dataclass(frozen=True)
class Planned:
    """One version of a model to be served."""

    name: str
    version: str
    folder: str
    """Its ``model/`` folder on this machine."""
    run: str
    task: str
    settings: ServingSection


def application(name: str, version: str) -> str:
    """The name of a version's application in Ray Serve.

    >>> application("digits", "2")
    'tunesmith:digits@2'
    """
    return f"{APPLICATION}:{name}@{version}"


def is_ours(name: str) -> bool:
    """Whether an application of Ray Serve is one of a service of ours."""
    return name == APPLICATION or name.startswith(f"{APPLICATION}:")


def planned(arguments: Sequence[str], output_dir: str = "runs") -> list[Planned]:
    """The models of ``RUN``, ``NAME=RUN`` and ``NAME@VERSION=RUN``; ``serving.KEY=VALUE`` changes the settings of all.

    Raises:
        UserError: a run that is not there or not finished, a model of one name and version twice, a setting that is wrong.
    """
    overrides = [text for text in arguments if text.startswith(_OVERRIDE)]
    runs = [text for text in arguments if not text.startswith(_OVERRIDE)]
    if not runs:
        raise UserError("name at least one run to serve.\n    → `tunesmith runs` lists them; `latest` is the newest.")
    found: dict[tuple[str, str], Planned] = {}
    for text in runs:
        one = _planned(text, overrides, output_dir)
        if (one.name, one.version) in found:
            raise UserError(
                f"two models are called {one.name}, version {one.version}: {found[one.name, one.version].run} and {one.run}.\n"
                f"    → Give one another name or version: {one.name}-b={one.run}, or {one.name}@2={one.run}"
            )
        found[one.name, one.version] = one
    return list(found.values())


def _planned(text: str, overrides: Sequence[str], output_dir: str) -> Planned:
    from tunesmith import storage
    from tunesmith.runs import Artefact, Run
    from tunesmith.tasks import load_task

    parts = _RUN.match(text)
    if parts is None:
        raise UserError(f"{text!r} names no run.\n    → Write RUN, NAME=RUN or NAME@VERSION=RUN.")
    run = Run.open(parts["run"], output_dir)
    folder = run.local_model()
    artefact = Artefact.read(folder)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ModelError(f"{folder} has no weights.\n    → Train again, or restore the run.")
    load_task(artefact.task)
    recipe = run.recipe.override(*overrides, check_paths=False) if overrides else run.recipe
    check_backend(recipe.serving)
    name = parts["name"] or str(run.manifest.get("name") or run.name)
    place = str(storage.local_path(run.path).absolute()) if storage.is_local(run.path) else run.path  # opened from anywhere
    return Planned(name, parts["version"] or "1", str(folder.absolute()), place, artefact.task, recipe.serving)


def listed(models: Sequence[Planned], cpus: int | None = None) -> dict[str, Any]:
    """What the door is given: its models in order, and the rollouts. Plain data, for a call and for ``serve.yaml`` alike.

    It is the ``user_config`` of the door, and changes without starting it anew. The first version of a model is the one that
    is meant where none is named. ``cpus`` of the machine are shared out as threads among all copies that there may be.
    """
    copies = sum(one.settings.most_replicas for one in models)
    return {
        "id": secrets.token_hex(4),
        "models": [entry(one, max(1, cpus // copies) if cpus else None) for one in models],
        "rollouts": {},
    }


def entry(one: Planned, threads: int | None = None) -> dict[str, Any]:
    """A version in the door's list; the same is what its own application is built of."""
    settings = one.settings.model_dump()
    about = {"name": one.name, "version": one.version, "folder": one.folder, "run": one.run}
    return {**about, "settings": settings, "threads": threads}


def check_backend(settings: ServingSection) -> None:
    """Raises :class:`UserError` where the backend cannot be had here: its package is missing, or it is to have a GPU."""
    if settings.backend == "torch":
        return
    if importlib.util.find_spec(settings.backend) is None:
        raise UserError(
            f"serving.backend is {settings.backend}, and its package is not installed.\n"
            f"    → pip install 'tunesmith[{settings.backend}]', or let PyTorch compute: serving.backend=torch"
        )
    if settings.num_gpus:
        raise UserError(
            f"serving.backend is {settings.backend}, which computes on CPUs, and serving.num_gpus is {settings.num_gpus:g}.\n"
            "    → serving.num_gpus=0, or serving.backend=torch"
        )


def places(models: Sequence[Planned]) -> int:
    """Requests that the door takes at a time: those of all queues, and as many again for versions that come later."""
    return 2 * sum(one.settings.max_queue for one in models)


def check_room(models: Sequence[Planned], cpus: float, gpus: float | None = None, *, free: bool = False) -> None:
    """Raises :class:`UserError` where the copies ask for more than there is: Serve would wait for it without a word.

    Copies that may come later (``max_replicas``) and will not fit are told of, once the GPUs are known. ``gpus`` is None where
    nobody knows yet; ``free`` says that others hold what is not counted, for now.
    """
    asked = sum(one.settings.num_cpus * one.settings.num_replicas for one in models)
    if asked > cpus:
        fair = int(100 * cpus / sum(one.settings.num_replicas for one in models)) / 100
        there = f"{cpus:g} are free" if free else f"there are {cpus:g}"
        raise UserError(
            f"the models ask for {asked:g} CPUs and {there}.\n"
            f"    → Serve fewer copies, or let them share: serving.num_cpus={fair:g}"
        )
    wanted = sum(one.settings.num_gpus * one.settings.num_replicas for one in models)
    if gpus is not None and wanted > gpus:
        raise UserError(
            f"the models ask for {wanted:g} GPUs and {f'{gpus:g} are free' if free else f'Ray finds {gpus:g}'}.\n"
            f"    → Serve fewer copies, let them share (serving.num_gpus=0.5), or answer on CPUs: serving.num_gpus=0"
        )
    if gpus is not None and not free:
        for words in short_of_room(models, cpus, gpus):
            click.secho(f"warning: {words}", fg="yellow", err=True)


def short_of_room(models: Sequence[Planned], cpus: float, gpus: float) -> list[str]:
    """What there is too little of for all copies that the models may scale up to."""
    told = []
    for what, there in (("CPUs", cpus), ("GPUs", gpus)):
        asked = sum(getattr(one.settings, f"num_{what.lower()}") * one.settings.most_replicas for one in models)
        if asked > there and any(one.settings.most_replicas > one.settings.num_replicas for one in models):
            told.append(
                f"with all their copies (serving.max_replicas) the models ask for {asked:g} {what}, and there are {there:g}: "
                "those beyond come once there is room"
            )
    return told


def serve_yaml(models: Sequence[Planned], keys: str, port: int, host: str = LOOPBACK) -> str:
    """What ``serve deploy`` takes, and a RayService of KubeRay as ``serveConfigV2``. It listens at ``host``.

    Beyond loopback every node with a copy has a proxy: KubeRay calls a pod without one not ready, for ever
    (https://github.com/ray-project/kuberay/issues/4994).
    """
    import yaml

    plan = listed(models)
    apart = copy.deepcopy(plan["models"])  # or YAML writes the second mention of each as a reference
    config = {
        "proxy_location": "HeadOnly" if host == LOOPBACK else "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            *(
                {
                    "name": application(one["name"], one["version"]),
                    "route_prefix": None,
                    "import_path": "tunesmith_serving.deployments:model",
                    "args": one,
                }
                for one in apart
            ),
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "tunesmith_serving.deployments:door",
                "args": {"keys": keys, "places": places(models), "drain_s": max(one.settings.drain_s for one in models)},
                "deployments": [{"name": DOOR, "user_config": plan}],
            },
        ],
    }
    return (
        "# Made by `tunesmith serve --write`. Deploy it with `serve deploy` on a cluster where Tunesmith is installed, or put\n"
        "# it into a RayService as serveConfigV2. Every node needs the models' folders and the file of keys at these paths.\n"
        + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    )


def cpus_here() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
