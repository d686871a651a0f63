"""What a site's file means, and a line of its audit log, in words."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.errors import ClusterError
from tunesmith_federated.deployment.site_config import PLACES, Resources, SiteConfig


def words(config: SiteConfig) -> str:
    """What the owner's file allows."""
    allow, limits = config.allow, config.limits
    signers = f"those signed by {', '.join(sorted(allow.signers))}" if allow.signers else ""
    count = len(allow.recipes)
    listed = f"{count} recipe{'s' * (count != 1)} by fingerprint" if count or not signers else ""
    recipes = "any recipe" if allow.any_recipe else " and ".join(filter(None, [listed, signers]))
    models = "any base model" if allow.any_model else ", ".join(allow.base_models) or "no base model"
    return "\n".join(
        [
            f"{config.name} → {config.server}",
            f"  data         {config.data_section()['train']}",
            f"  recipes      {recipes}" + ("" if allow.recipes or allow.signers else ": nothing will be done"),
            f"  base models  {models}",
            f"  a job gets   {limits.rounds} rounds, {limits.epochs:g} passes over the data, {limits.seconds:g} s",
            f"  only with    {limits.least_cohort} sites or more; nothing is reported below {limits.min_examples} rows",
            f"  trains on    {_trains_on(config.resources)}",
            f"  state        {config.state_dir}",
        ]
    )


def _trains_on(resources: Resources) -> str:
    workers, gpus = resources.num_workers, resources.gpus
    threads = f"{resources.cpus} thread{'s' * (resources.cpus > 1)}"
    devices = f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else ""
    return f"{workers} workers, {threads}{devices} together" if workers > 1 else f"{threads}{devices}"


def check_machine(config: SiteConfig) -> None:
    """Raises :class:`ClusterError` where the owner gives more workers or GPUs than this machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers, gpus = config.resources.num_workers, config.resources.gpus
    if workers > cores:
        raise ClusterError(
            f"{config.path}: resources.num_workers: {workers} workers need a core each, and this machine has {cores}\n"
            f"    → Write {cores} at most."
        )
    if gpus:
        import torch

        there = torch.cuda.device_count()
        if gpus > there:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            limited = f" (CUDA_VISIBLE_DEVICES={seen})" if seen is not None else ""
            raise ClusterError(
                f"{config.path}: resources.gpus: {gpus} are given, and PyTorch sees {there} here{limited}\n"
                f"    → Write {there}{' to train on CPUs' * (not there)}, or install what PyTorch needs to see them."
            )


def missing(config: SiteConfig) -> list[str]:
    """Places of data on this machine where nothing is."""
    section = config.data_section()
    places: list[str] = []
    for key in PLACES:
        value = section.get(key, [])
        places += value if isinstance(value, list) else [value]
    return [one for one in places if "://" not in one and not Path(one).exists() and not glob.glob(one)]


def line(entry: Mapping[str, Any]) -> str:
    """An entry for the terminal."""
    rest = {key: value for key, value in entry.items() if key not in ("n", "time", "event", "before", "hash")}
    facts = "  ".join(f"{key}={value}" for key, value in rest.items())
    return f"{entry.get('n', '?'):>6}  {str(entry.get('time', ''))[:19]}  {entry.get('event', '?'):<8}  {facts}"
