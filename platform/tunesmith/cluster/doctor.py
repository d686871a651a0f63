"""Looks at this machine, and at a cluster: what would keep Tunesmith from working, and how to mend it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunesmith.cluster.connect import JOB_CONFIG
from tunesmith.errors import TunesmithError

GIB = 2**30
LEAST_MEMORY = 4 * GIB
"""Ray, its helpers and two workers with PyTorch loaded take about 3 GiB."""
LEAST_DISK = 5 * GIB
LEAST_SHARED_MEMORY = 256 * 2**20
"""Ray falls back to files, which are slow, where ``/dev/shm`` is smaller than its object store (75 MiB at the least)."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    """What is there."""
    fix: str = ""
    """What to do about it; empty where it is well."""


UNTRIED = Finding(
    "run folder", "warn", "not tried: a job has none of its own", "--storage s3://BUCKET/runs, where they are to go"
)


def examine(on: str | None = None, storage: str | None = None) -> Iterator[Finding]:
    """All findings, the quick ones first.

    Args:
        on: a cluster to join; None starts a Ray here, to see that it can.
        storage: where runs are to go; None is ``runs`` here, and in a job, whose own folder holds none, nothing.
    """
    if storage is None and JOB_CONFIG not in os.environ:
        storage = "runs"
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _packages,
        _torch,
        _gpu,
        _memory,
        _shared_memory,
        lambda: _disk(storage or tempfile.gettempdir()),
        lambda: _writable(storage) if storage is not None else UNTRIED,
    )
    for check in checks:
        yield check()
    yield from _ray(on, storage)


def _python() -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    torch = importlib.util.find_spec("torch")  # finds it without importing it
    if torch is None or torch.origin is None or not sys.dont_write_bytecode:
        return Finding("python", "ok", found)
    if Path(importlib.util.cache_from_source(torch.origin)).exists():
        return Finding("python", "ok", found)
    return Finding(
        "python",
        "warn",
        f"{found}, which compiles the packages anew at every start and may not keep it (PYTHONDONTWRITEBYTECODE)",
        f"once: {sys.executable} -m compileall -q -j 0 {Path(torch.origin).parents[1]}",
    )


def _packages() -> Finding:
    """What is installed against what the distribution asks for."""
    from packaging.requirements import Requirement

    from tunesmith.cluster.wheel import requirements

    wrong = []
    asked = [Requirement(line) for line in requirements()]
    for requirement in asked:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), "pip install -c constraints.txt tunesmith")
    return Finding("packages", "ok", f"{len(asked)} packages are as asked for")


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "fail", f"cannot be imported: {error}", "pip install -c constraints.txt torch")
    threads, cpus = torch.get_num_threads(), os.cpu_count() or 1
    found = f"{torch.__version__}, {threads} thread{'s' * (threads != 1)} on {cpus} CPUs"
    if threads > cpus:
        return Finding("torch", "warn", found, f"export OMP_NUM_THREADS={cpus}: more threads than CPUs slow each other down")
    return Finding("torch", "ok", found)


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError):
        return Finding("gpu", "warn", "not looked for, as torch cannot be imported", "install torch first")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("gpu", "ok", ", ".join(names) + f", CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi"):
        return Finding(
            "gpu", "warn", "nvidia-smi is here, but torch sees no GPU", "install a CUDA build of torch for this driver"
        )
    return Finding("gpu", "ok", "none: training runs on CPUs")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = _available_memory() or total
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < LEAST_MEMORY:
        return Finding(
            "memory", "warn", found, f"close other programs, or use fewer workers: two take about {LEAST_MEMORY // GIB} GiB"
        )
    return Finding("memory", "ok", found)


def _available_memory() -> int | None:
    """Bytes that a new process could have, as Linux tells; None elsewhere."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _shared_memory() -> Finding:
    if not os.path.isdir("/dev/shm"):  # noqa: S108 (the place is Ray's choice)
        return Finding("shared memory", "ok", "Ray uses files on this system")
    free = shutil.disk_usage("/dev/shm").free  # noqa: S108
    found = f"{free / GIB:.2f} GiB free in /dev/shm"
    if free < LEAST_SHARED_MEMORY:
        return Finding("shared memory", "warn", found, "start the container with --shm-size=1g (docker) or a larger emptyDir")
    return Finding("shared memory", "ok", found)


def _disk(storage: str) -> Finding:
    from tunesmith.storage import is_local, local_path

    folders = [Path(tempfile.gettempdir())]
    if is_local(storage):
        folder = local_path(storage).absolute()
        folders.append(next(parent for parent in (folder, *folder.parents) if parent.exists()))
    found, low = [], []
    for folder in folders:
        free = shutil.disk_usage(folder).free
        found.append(f"{free / GIB:.0f} GiB free at {folder}")
        if free < LEAST_DISK:
            low.append(str(folder))
    if low:
        return Finding("disk", "warn", ", ".join(found), f"free space at {' and '.join(low)}: Ray and checkpoints write there")
    return Finding("disk", "ok", ", ".join(found))


def _writable(storage: str) -> Finding:
    from tunesmith.storage import check_writable, is_local, local_path

    folder = local_path(storage) if is_local(storage) else None
    was_there = folder is None or folder.exists()
    try:
        check_writable(storage)
    except TunesmithError as error:
        return _failed("run folder", error)
    if folder is not None and not was_there:
        with contextlib.suppress(OSError):
            folder.rmdir()
    return Finding("run folder", "ok", f"{storage} can be written")


def _ray(on: str | None, storage: str | None) -> Iterator[Finding]:
    """Joins or starts a Ray and asks its nodes."""
    from tunesmith.cluster.connect import connect
    from tunesmith.cluster.preflight import check_storage, check_versions, describe

    began = time.monotonic()
    try:
        with connect(on) as cluster:
            took = time.monotonic() - began
            nodes = cluster.nodes()
            how = "started here" if cluster.started_here else f"joined {cluster.address}"
            found = f"{how} in {took:.1f} s: {len(nodes)} node{'s' * (len(nodes) != 1)}, "
            yield Finding("ray", "ok", found + ", ".join(f"{node.name} {describe(node.total)}" for node in nodes[:8]))
            if len(nodes) > 1:
                yield _attempt("versions", "the same on all nodes", check_versions)
            if len(nodes) > 1 and storage is not None:
                yield _attempt("storage", f"{storage} is shared by all nodes", lambda: check_storage(storage))
    except TunesmithError as error:
        yield _failed("ray", error)


def _attempt(name: str, found: str, check: Callable[[], None]) -> Finding:
    try:
        check()
    except TunesmithError as error:
        return _failed(name, error)
    return Finding(name, "ok", found)


def _failed(name: str, error: TunesmithError) -> Finding:
    found, _, fix = str(error).partition("→")
    return Finding(name, "fail", " ".join(found.split()), fix.strip())
