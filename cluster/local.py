"""A real Ray cluster of several nodes on this machine, for development and tests.

Each node is a raylet of its own, with its own resources, logs and processes, made by ``ray start``; everything listens on
127.0.0.1. A node can be killed as if its power were cut.

    python cluster/local.py up --nodes 3 --cpus 1 --dashboard
    python cluster/local.py status
    python cluster/local.py kill-node 2
    python cluster/local.py down

Tests use :class:`LocalCluster` as a context.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
START_TIMEOUT = 90.0
"""Seconds in which a node must be up (5 s on two idle cores)."""
STOP_TIMEOUT = 10.0
"""Seconds between asking a node to end and killing it."""
OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory for each node; Ray's least is 75 MiB."""
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's own switch: at 0 its processes take 127.0.0.1 as this machine's address and listen nowhere else, on Linux too."""
LAUNCH = """
from ray._private import ray_constants, services
from ray.scripts.scripts import main
ray_constants.ENABLE_RAY_CLUSTER = True
services.resolve_ip_for_localhost = lambda host: host
main()
"""
"""``ray start``, kept from its two objections to a cluster on 127.0.0.1: with the switch above it refuses a second node, and
without it it replaces 127.0.0.1 by an address that the whole network reaches."""


@dataclass(frozen=True)
class NodeProcess:
    """One node: the ``ray start --block`` process, which leads a session that all of the node's processes belong to."""

    index: int
    """0 is the head."""
    pid: int
    started: float
    """Start time of the process in clock ticks since boot: a reused pid has another one."""
    log: str
    """What ``ray start`` said; Ray's own logs are under ``FOLDER/session_latest/logs``."""


@dataclass
class LocalCluster:
    """A cluster that is up while the context lasts.

    ``folder`` is kept short: Ray puts Unix sockets into it, whose paths may have 107 bytes.
    """

    nodes: int = 2
    cpus: float = 1
    """Logical CPUs of each node."""
    dashboard: bool = False
    """Start the dashboard on the head: jobs can be submitted to it, and starting takes about 6 s longer."""
    port: int = 0
    """Port of the head's control service; 0 takes a free one."""
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / f"tunesmith-{secrets.token_hex(3)}")
    detached: bool = False
    """Outlive this process."""
    dashboard_port: int = 0
    processes: list[NodeProcess] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Starts the cluster."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it."""
        self.stop()

    @property
    def address(self) -> str:
        """Where drivers and nodes join."""
        return f"{HOST}:{self.port}"

    @property
    def jobs_address(self) -> str:
        """Where jobs are submitted."""
        return f"http://{HOST}:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to join."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token", **self._token(), **LOOPBACK_ONLY}

    def start(self) -> None:
        """Starts the head, then the other nodes at the same time. Raises :class:`RuntimeError` with the log where one fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        self.dashboard_port = (self.dashboard_port or free_port()) if self.dashboard else 0
        if not self.detached:
            atexit.register(self.stop)
        try:
            self._launch(0)
            self._await([0])
            others = range(1, self.nodes)
            for index in others:
                self._launch(index)
            self._await(others)
            if self.dashboard:
                self._await_dashboard()
        except BaseException:
            self.stop()
            raise
        self.save()

    def add_node(self) -> int:
        """Starts one more node and returns its number."""
        index = max(node.index for node in self.processes) + 1
        self._launch(index)
        self._await([index])
        self.save()
        return index

    def kill_node(self, index: int) -> None:
        """Kills all processes of a node at once, as if its power were cut."""
        node = self._node(index)
        _kill(_members(node), signal.SIGKILL)
        _await_end(node, STOP_TIMEOUT)

    def alive(self, index: int) -> bool:
        """Whether a node still has its leading process."""
        return _is_same(self._node(index))

    def stop(self) -> None:
        """Ends all nodes, the head last; kills what is left after :data:`STOP_TIMEOUT` seconds, and removes the folder."""
        atexit.unregister(self.stop)
        nodes = [node for node in reversed(self.processes) if _members(node)]
        for node in nodes:
            _kill([node.pid] if _is_same(node) else [], signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        for node in nodes:
            _await_end(node, deadline - time.monotonic())
            _kill(_members(node), signal.SIGKILL)
            _await_end(node, STOP_TIMEOUT)
        for node in self.processes:
            child = _CHILDREN.pop(node.pid, None)
            if child is not None:
                child.wait(STOP_TIMEOUT)
        self.processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self) -> None:
        """Writes down what is needed to find the cluster again from another process."""
        state = asdict(self) | {"folder": str(self.folder)}
        temporary = self.folder / "cluster.json.tmp"
        temporary.write_text(json.dumps(state, indent=2))
        temporary.replace(self.folder / "cluster.json")

    @classmethod
    def load(cls, folder: Path) -> LocalCluster:
        """The cluster that another process started in ``folder``."""
        state = json.loads((folder / "cluster.json").read_text())
        processes = [NodeProcess(**record) for record in state.pop("processes")]
        return cls(**(state | {"folder": folder, "processes": processes}))

    def _launch(self, index: int) -> None:
        home = self.folder / f"n{index}"
        home.mkdir(exist_ok=True)
        log = self.folder / f"node-{index}.log"
        command = [sys.executable, "-c", LAUNCH, "start", "--block", "--disable-usage-stats"]
        command += [f"--node-name=node-{index}"]
        command += [f"--node-ip-address={HOST}", f"--num-cpus={self.cpus:g}", f"--object-store-memory={OBJECT_STORE}"]
        # Fixed by default, so that a second Ray on this machine would find it taken and jobs would fail.
        command += [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={home}"]
        if index == 0:
            command += ["--head", f"--port={self.port}", f"--ray-client-server-port={free_port()}"]
            command += [f"--include-dashboard={self.dashboard}"]
            command += [f"--dashboard-host={HOST}", f"--dashboard-port={self.dashboard_port}"] if self.dashboard else []
        else:
            command += [f"--address={self.address}"]
        environment = os.environ | self.environment
        environment.pop("RAY_ADDRESS")
        # Jobs start `python`, which is to be this one, whether its virtual environment is activated or not.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if self.detached else _end_with_parent(),  # noqa: PLW1509 (one thread at a time starts nodes)
            )
        _CHILDREN[process.pid] = process
        self.processes.append(NodeProcess(index, process.pid, _start_time(process.pid), str(log)))

    def _await(self, indices: range | list[int]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        for index in indices:
            node = self._node(index)
            while "Ray runtime started" not in (said := Path(node.log).read_text(errors="replace")):
                if not _is_same(node) or time.monotonic() > deadline:
                    raise RuntimeError(f"node {index} did not start:\n{said}")
                time.sleep(0.1)

    def _await_dashboard(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.dashboard_port), timeout=1):
                return
            time.sleep(0.2)
        raise RuntimeError(f"the dashboard does not answer at {self.jobs_address}; see {self.folder}/n0/session_latest/logs")

    def _node(self, index: int) -> NodeProcess:
        for node in self.processes:
            if node.index == index:
                return node
        raise ValueError(f"there is no node {index}; there are {[node.index for node in self.processes]}")

    def _token(self) -> dict[str, str]:
        """The user's own Ray token where there is one, else one made for this cluster, in a file only the user can read."""
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            if name in os.environ:
                return {name: os.environ[name]}
        if (Path.home() / ".ray" / "auth_token").is_file():
            return {}
        path = self.folder / "token"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        return {"RAY_AUTH_TOKEN_PATH": str(path)}


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Processes this one started, so that their ends are collected."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux, what makes a child end (SIGTERM) when this process dies, however it dies."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _start_time(pid: int) -> float:
    """Start of a process, field 22 of proc(5)'s stat; 0 where it is gone."""
    try:
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0.0


def _is_same(node: NodeProcess) -> bool:
    """Whether the node's leading process runs; a pid that another process has by now does not count."""
    child = _CHILDREN.get(node.pid)
    if child is not None and child.poll() is not None:
        return False
    return _start_time(node.pid) == node.started


def _members(node: NodeProcess) -> list[int]:
    """Every living process of the node's session, workers included, whoever their parent is by now."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                state, session, started = fields[0], int(fields[3]), float(fields[19])
                if session == node.pid and started >= node.started and state != "Z":
                    members.append(int(entry.name))
    return members


def _kill(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _await_end(node: NodeProcess, timeout: float) -> bool:
    """Waits until no process of the node is left. Returns whether that is so."""
    deadline = time.monotonic() + timeout
    while True:
        child = _CHILDREN.get(node.pid)
        if child is not None:
            child.poll()
        if not _members(node):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


def _exports(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        yield f"export {name}={shlex.quote(value)}"


def _report(cluster: LocalCluster) -> None:
    for node in cluster.processes:
        role = "head" if node.index == 0 else "node"
        print(f"{role} {node.index}: {'up  ' if _is_same(node) else 'dead'}  pid {node.pid}  {node.log}")
    print(f"\naddress  {cluster.address}")
    if cluster.dashboard:
        print(f"jobs     {cluster.jobs_address}")
    print("\n".join(["", *_exports(cluster.environment)]))


def main() -> int:
    """The command line."""
    default = Path(tempfile.gettempdir()) / f"tunesmith-{os.getuid()}"
    parser = argparse.ArgumentParser(description="A Ray cluster of several nodes on this machine.")
    parser.add_argument(
        "--folder", type=Path, default=default, help=f"where its state and logs are (short!), {default} if not said"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start it")
    up.add_argument("--nodes", type=int, default=2, help="how many, the head included (2)")
    up.add_argument("--cpus", type=float, default=1, help="logical CPUs of each node (1)")
    up.add_argument("--port", type=int, default=0, help="port of the head (a free one)")
    up.add_argument("--dashboard", action="store_true", help="start the dashboard, which takes jobs")
    up.add_argument("--dashboard-port", type=int, default=0, help="its port (a free one)")
    verbs.add_parser("status", help="which nodes live, the address, and what to export")
    verbs.add_parser("add-node", help="start one more node")
    kill = verbs.add_parser("kill-node", help="kill a node as if its power were cut")
    kill.add_argument("node", type=int)
    verbs.add_parser("down", help="end it")
    asked = parser.parse_args()
    there = (asked.folder / "cluster.json").exists()
    if asked.verb == "up":
        if there:
            parser.exit(2, f"a cluster is in {asked.folder} already; end it with `{parser.prog} down`\n")
        cluster = LocalCluster(
            asked.nodes,
            asked.cpus,
            asked.dashboard,
            asked.port,
            asked.folder,
            detached=True,
            dashboard_port=asked.dashboard_port,
        )
        cluster.start()
        _report(cluster)
        return 0
    if not there:
        parser.exit(2, f"no cluster in {asked.folder}; start one with `{parser.prog} up`\n")
    cluster = LocalCluster.load(asked.folder)
    if asked.verb == "down":
        cluster.stop()
    elif asked.verb == "add-node":
        print(f"node {cluster.add_node()} is up")
    elif asked.verb == "kill-node":
        cluster.kill_node(asked.node)
    else:
        _report(cluster)
    return 0


if __name__ == "__main__":
    sys.exit(main())
