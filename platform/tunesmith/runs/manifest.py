"""What a run's ``manifest.json`` says before training starts: of which recipe, code, packages and machine, by which command."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.runs.masking import masked_command

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

RELEVANT_PACKAGES = (
    *("tunesmith", "torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "huggingface_hub", "peft"),
    *("ray", "optuna", "flwr", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pillow", "kornia", "soundfile"),
    *("torchmetrics", "mlflow", "tensorboard", "wandb"),
)
"""The packages whose version can change a result or its record."""


def collect(recipe: Recipe, command: Sequence[str]) -> dict[str, Any]:
    """The manifest of a run that starts now."""
    return {
        "tunesmith": version("tunesmith"),
        "name": recipe.name,
        "task": recipe.task,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "status": "running",
        "command": masked_command(command),
        "recipe_fingerprint": recipe.fingerprint(),
        "seeds": {"training": recipe.training.seed, "split": recipe.data.split.seed, "evaluation": recipe.evaluation.seed},
        "git": git_state(),
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware(),
        "workers": recipe.training.num_workers,
        "durations": {},
    }


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> dict[str, str]:
    """Installed versions of the relevant packages by name."""
    return {name: found for name in RELEVANT_PACKAGES if (found := version(name)) is not None}


def git_state(folder: str | os.PathLike[str] | None = None) -> dict[str, Any] | None:
    """Commit of the repository that ``folder`` (the working directory) is in, and whether tracked files are changed."""
    commit = _git("rev-parse", "HEAD", folder=folder)
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", folder=folder))}


def hardware() -> dict[str, Any]:
    """This machine: host name, usable CPU cores, memory in bytes, GPUs by name (where PyTorch is loaded already)."""
    return {
        "hostname": socket.gethostname(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": _cpus(),
        "memory": _memory(),
        "gpus": _gpus(),
    }


def _git(*arguments: str, folder: str | os.PathLike[str] | None) -> str | None:
    """What git prints, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpus() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory() -> int | None:
    """Memory in bytes: the machine's, or the container's where that is less."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return total


def _gpus() -> list[str]:
    """Names of the GPUs, without importing PyTorch for it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
