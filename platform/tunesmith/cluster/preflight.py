"""Asked before a job starts, answered within seconds: is there room, can every node see the storage, do the versions agree.

Each check raises :class:`tunesmith.errors.ClusterError` with what was demanded, what is there, and what to write instead;
without them Ray waits for ever for resources that will never come.
"""

from __future__ import annotations

import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tunesmith.cluster.nodes import Node, Reply, alive_nodes, ask_every_node
from tunesmith.errors import ClusterError

Resources = Mapping[str, float]

SHARED_PACKAGES = ("ray", "torch", "transformers", "pyarrow", "accelerate")
"""Packages whose versions must agree between this process and every node."""


ASKED_BY = "training.num_workers="
"""Where the number of workers is written, unless a verb says otherwise."""

ELSEWHERE = "training.output_dir=s3://BUCKET/runs (or gs://, hdfs://), or a folder that all nodes mount (NFS)"
"""What to do where storage is not shared, unless a verb says otherwise."""


def preflight(
    num_workers: int,
    resources_per_worker: Resources,
    *,
    storage: str | None = None,
    timeout: float = 30.0,
    asked_by: str = ASKED_BY,
    elsewhere: str = ELSEWHERE,
) -> None:
    """All checks, the cheap ones first. ``storage`` is the folder or URI the job writes to.

    Raises:
        ClusterError: the first of them that fails.
    """
    check_resources(num_workers, resources_per_worker, timeout=timeout, asked_by=asked_by)
    check_versions(timeout=timeout)
    if storage is not None:
        check_storage(storage, timeout=timeout, elsewhere=elsewhere)


def check_resources(
    num_workers: int, resources_per_worker: Resources, *, timeout: float = 30.0, asked_by: str = ASKED_BY
) -> None:
    """That ``num_workers`` workers of ``resources_per_worker`` fit on the cluster's nodes, each worker whole on one node.

    Demands that could never fit fail at once; where other jobs hold what is needed, it is waited for up to ``timeout`` seconds.

    Raises:
        ClusterError: there is not enough, or it stays taken.
    """
    deadline = time.monotonic() + timeout
    while True:
        nodes = alive_nodes()
        if capacity(nodes, resources_per_worker) < num_workers:
            raise ClusterError(too_small(num_workers, resources_per_worker, nodes, asked_by))
        if sum(room([node.free for node in nodes], resources_per_worker)) >= num_workers:
            return
        if time.monotonic() >= deadline:
            raise ClusterError(too_busy(num_workers, resources_per_worker, nodes, timeout, asked_by))
        time.sleep(0.5)


def detect_gpus(nodes: Sequence[Node] | None = None) -> int:
    """GPUs of all living nodes of the cluster this process is connected to."""
    return int(sum(node.total.get("GPU", 0) for node in (alive_nodes() if nodes is None else nodes)))


def room(nodes: Sequence[Resources], worker: Resources) -> list[int]:
    """How many workers fit on each node. Exact, because all workers demand the same.

    >>> room([{"CPU": 4, "GPU": 1}, {"CPU": 8}], {"CPU": 2, "GPU": 1})
    [1, 0]
    >>> room([{"CPU": 0.3}], {"CPU": 0.1})
    [3]
    """
    demands = {name: amount for name, amount in worker.items() if amount > 0}
    if not demands:
        return [sys.maxsize] * len(nodes)
    return [
        min(math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in demands.items())  # 0.3 / 0.1 < 3 in floats
        for node in nodes
    ]


def capacity(nodes: Sequence[Node], worker: Resources) -> int:
    """How many workers fit on the cluster when nothing else runs."""
    return sum(room([node.total for node in nodes], worker))


def too_small(num_workers: int, worker: Resources, nodes: Sequence[Node], asked_by: str = ASKED_BY) -> str:
    """Why the demand can never be met here, and what to write instead."""
    fitting = room([node.total for node in nodes], worker)
    lines = ["the cluster is too small for this run", *_asked_and_there(num_workers, worker, nodes, fitting)]
    absent = [name for name, amount in worker.items() if amount > 0 and not any(node.total.get(name) for node in nodes)]
    if absent:
        lines.append(f"    no node has {' or '.join(_a(name) for name in absent)}")
    return "\n".join([*lines, f"    → {_fix(num_workers, worker, nodes, asked_by)}"])


def too_busy(num_workers: int, worker: Resources, nodes: Sequence[Node], waited: float, asked_by: str = ASKED_BY) -> str:
    """Why the demand is not met at the moment."""
    free = room([node.free for node in nodes], worker)
    lines = [f"the cluster is busy: after {waited:.0f} s there is still no room for this run"]
    lines += _asked_and_there(num_workers, worker, nodes, free, free=True)
    fewer = f"{asked_by}{sum(free)} fits now; " if sum(free) else ""
    wait = "it is large enough: wait for the other jobs to end (`ray status` lists what is used)"
    return "\n".join([*lines, f"    → {fewer}{wait}"])


def _fix(num_workers: int, worker: Resources, nodes: Sequence[Node], asked_by: str) -> str:
    """The nearest overrides that would run here."""
    fits = capacity(nodes, worker)
    grow = "or add nodes (`ray start --address=HEAD:6379` on each)"
    if fits:
        return f"{asked_by}{fits}, {grow}"
    if worker.get("GPU"):
        on_cpus = capacity(nodes, {name: amount for name, amount in worker.items() if name != "GPU"})
        if on_cpus and not detect_gpus(nodes):
            return f"{asked_by}{min(num_workers, on_cpus)} training.use_gpu=false, {grow}"
    return f"smaller training.resources_per_worker: one worker must fit on one node, {grow}"


def _asked_and_there(
    num_workers: int, worker: Resources, nodes: Sequence[Node], fitting: Sequence[int], *, free: bool = False
) -> list[str]:
    asked = f"    asked: {num_workers} worker{'s' * (num_workers != 1)} × {describe(worker)}"
    there = f"    there: {len(nodes)} node{'s' * (len(nodes) != 1)}, room for {sum(fitting)}{' now' * free}"
    rows = [
        f"        {node.name}: {describe(node.total, worker)}"
        + (f", free {describe({name: node.free.get(name, 0) for name in worker})}" if free else "")
        + f" → {count} worker{'s' * (count != 1)}"
        for node, count in zip(nodes, fitting, strict=True)
    ]
    return [asked, there, *_shortened(rows)]


def describe(resources: Resources, beside: Resources = {}) -> str:  # noqa: B006 (never changed)
    """Resources as a person writes them, those that ``beside`` names first (0 where lacking); memory in GiB.

    >>> describe({"CPU": 2.0, "memory": 2**31, "node:10.0.0.1": 1.0})
    '{CPU: 2, memory: 2 GiB}'
    >>> describe({"CPU": 2.0, "memory": 2**31}, beside={"GPU": 1})
    '{GPU: 0, CPU: 2}'
    """
    hidden = {"object_store_memory", "memory"} if beside else {"object_store_memory"}
    names = [name for name in resources if name not in beside and not name.startswith("node:") and name not in hidden]
    return "{" + ", ".join(f"{name}: {_amount(name, resources.get(name, 0))}" for name in [*beside, *names]) + "}"


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB" if "memory" in name else f"{amount:.6g}"


def _a(name: str) -> str:
    return f"a {name}" if name in ("CPU", "GPU", "TPU") else f"`{name}`"


def _shortened(rows: list[str], most: int = 12) -> list[str]:
    return rows if len(rows) <= most else [*rows[:most], f"        … and {len(rows) - most} more"]


def check_versions(*, timeout: float = 30.0) -> None:
    """That every node has this process's Python (minor) and the same versions of the packages that must agree.

    Raises:
        ClusterError: naming each node that differs. Skipped on a single node.
    """
    nodes = alive_nodes()
    if len(nodes) < 2:
        return
    ours = _versions(SHARED_PACKAGES)
    problems = []
    for reply in ask_every_node(_versions_by_value(), SHARED_PACKAGES, timeout=timeout, nodes=nodes):
        theirs = reply.value or {}
        differing = [
            f"{name} {theirs.get(name) or 'missing'} (here {ours[name]})" for name in ours if theirs.get(name) != ours[name]
        ]
        if reply.problem or differing:
            problems.append(f"    {reply.node.name}: {reply.problem or ', '.join(differing)}")
    if problems:
        raise ClusterError(
            "\n".join(
                [
                    "nodes of the cluster do not have what this process has:",
                    *problems,
                    "    → install the same versions on every node (constraints.txt pins them), or submit a job: --on http://HEAD:8265",
                ]
            )
        )


def _versions(packages: Sequence[str]) -> dict[str, str | None]:
    import importlib.metadata
    import platform

    found: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _versions_by_value() -> Callable[..., dict[str, str | None]]:
    """:func:`_versions` detached from this module, so that a node without Tunesmith can run it."""
    import types

    # A function whose module cannot be imported is pickled by value (cloudpickle).
    return types.FunctionType(_versions.__code__, {"__builtins__": __builtins__}, "versions")


def check_storage(uri: str, *, timeout: float = 30.0, elsewhere: str = ELSEWHERE) -> None:
    """That every node reads what this process writes under ``uri``, and this process what every node writes.

    Raises:
        ClusterError: naming the nodes that cannot. Skipped on a single node.
    """
    from tunesmith import storage

    nodes = alive_nodes()
    if len(nodes) < 2:
        return
    folder = storage.join(storage.absolute(uri), f".probe-{secrets.token_hex(4)}")
    storage.write_text(storage.join(folder, "driver"), "driver")
    try:
        replies = ask_every_node(_probe_storage, folder, timeout=timeout, nodes=nodes)
        blind = [problem for reply in replies if (problem := _storage_problem(folder, reply))]
    finally:
        storage.delete(folder)
    if blind:
        raise ClusterError(
            "\n".join(
                [
                    f"{uri} is not shared by all nodes:",
                    *_shortened([f"        {line}" for line in blind]),
                    f"    → {elsewhere}",
                ]
            )
        )


def _probe_storage(folder: str) -> tuple[str, str | None]:
    """On a node: reads the driver's file and writes its own, named after the node. Returns that name and the problem."""
    import ray

    from tunesmith import storage

    name = ray.get_runtime_context().get_node_id()
    try:
        # Read first: writing would create the folder on a disk that is not shared.
        storage.read_text(storage.join(folder, "driver"))
    except Exception as error:  # any failure of any file system is the answer
        return name, f"cannot read it ({type(error).__name__})"
    try:
        storage.write_text(storage.join(folder, name), name)
    except Exception as error:
        return name, f"reads it, but cannot write ({type(error).__name__}: {error})"
    return name, None


def _storage_problem(folder: str, reply: Reply) -> str | None:
    from tunesmith import storage

    if reply.problem:
        return f"{reply.node.name}: {reply.problem}"
    name, problem = reply.value
    if problem is None and not storage.exists(storage.join(folder, name)):
        problem = "what it writes there is not seen here"
    return f"{reply.node.name} {problem}" if problem else None
