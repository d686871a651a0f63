"""The server of a federation: SuperLink and its executor on loopback, and the front door before them.

::

    sites ──mutual TLS──► front door (HAProxy) ──TLS, loopback──► SuperLink ◄── executor ──► server app of a job
                          /v1/fleet/* alone                       database

Each is started again when it dies; SuperLink keeps what it knows in its database, so that a run goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.cluster.ports import LOOPBACK, free_port
from tunesmith.errors import ServiceError, TunesmithError, UserError
from tunesmith_federated.deployment import certificates, proxy
from tunesmith_federated.deployment.certificates import write_secret
from tunesmith_federated.deployment.children import Child, Children, flower_command
from tunesmith_federated.deployment.folder import Federation

ANYWHERE = ("0.0.0.0", "*", "")  # noqa: S104  # compared with, not listened on
"""The front door's addresses that stand for all of the machine's."""
START_SECONDS = 90.0
"""In which SuperLink must answer (4 s on two idle cores)."""
LOOK_SECONDS = 0.5
"""Between looks at the children."""
TASK_POLL_SECONDS = "0.5"
"""Between the executor's questions for a job."""


@dataclass(frozen=True)
class Running:
    """A federation that is up, as ``state/up.json`` has it."""

    pid: int
    started: str
    """Start of the process in clock ticks since boot: a reused pid has another one."""
    listen: str
    """``ADDRESS:PORT`` of the front door."""
    superlink: str
    """``ADDRESS:PORT`` on loopback."""


def running(federation: Federation) -> Running | None:
    """What is up, or None."""
    try:
        found = Running(**json.loads((federation.state / "up.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if process_start(found.pid) == found.started else None


def require(federation: Federation) -> Running:
    """What is up. Raises :class:`ServiceError` where nothing is."""
    found = running(federation)
    if found is None:
        raise ServiceError(f"the federation {federation.folder} is not up\n    → `tunesmith federation up {federation.folder}`")
    return found


def up(federation: Federation, say: Callable[[str], None], listen: str = LOOPBACK, port: int | None = None) -> None:
    """Run until Ctrl-C or SIGTERM. ``listen`` is the front door's address; ``port`` None takes the federation's.

    Raises :class:`UserError` where it is up already or the port is taken, :class:`TunesmithError` where a part does not start.
    """
    federation.logs.mkdir(parents=True, exist_ok=True)
    with _alone(federation):
        front = f"{listen}:{federation.port if port is None else port}"
        _check_free(front)
        link_port = free_port()
        children = Children()
        try:
            _start(federation, children, front, link_port)
            mark = Running(os.getpid(), process_start(os.getpid()), front, f"{LOOPBACK}:{link_port}")
            write_secret(federation.state / "up.json", json.dumps(asdict(mark)).encode())
            say(f"the federation {federation.name} is up: sites reach it at {federation.host}:{front.rpartition(':')[2]}")
            say(f"  front door {front} (mutual TLS, /v1/fleet/ alone), SuperLink {mark.superlink}, logs {federation.logs}")
            while True:
                time.sleep(LOOK_SECONDS)
                children.revive(say)
        finally:
            (federation.state / "up.json").unlink(missing_ok=True)
            children.stop()


def up_detached(federation: Federation, listen: str, port: int | None) -> Running:
    """The same in a process that stays when this one ends; returns once it is ready."""
    if (found := running(federation)) is not None:
        raise UserError(_is_up(federation, found))
    federation.logs.mkdir(parents=True, exist_ok=True)
    log = federation.logs / "up.log"
    command = [sys.executable, "-m", "tunesmith.cli", "federation", "up", str(federation.folder), "--listen", listen]
    command += [] if port is None else ["--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS + 30
    while time.monotonic() < deadline:
        if (found := running(federation)) is not None and found.pid == process.pid:
            return found
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace").strip().removeprefix("error:").strip()
            raise (UserError if process.returncode == UserError.exit_code else TunesmithError)(said)
        time.sleep(0.2)
    process.terminate()
    raise TunesmithError(f"the federation was not up within {START_SECONDS + 30:.0f} s; see {log}")


def stop(federation: Federation, within: float = 60.0) -> bool:
    """End what is up; False where nothing was."""
    found = running(federation)
    if found is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, 15)
    deadline = time.monotonic() + within
    while process_start(found.pid) == found.started:
        if time.monotonic() > deadline:
            raise TunesmithError(f"process {found.pid} has not ended within {within:.0f} s")
        time.sleep(0.1)
    return True


def _start(federation: Federation, children: Children, front: str, link_port: int) -> None:
    from tunesmith_federated import flower
    from tunesmith_federated.deployment import wire

    config = proxy.write_config(federation, front, link_port)
    address = f"{LOOPBACK}:{link_port}"
    ca, secret = federation.ca / "ca.crt", federation.secret
    extra = {
        "PATH": f"{_scripts(federation)}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_POLL_SECONDS,
    }
    environment = flower.environment(str(federation.state / "flwr"), extra)
    link = flower_command(
        *("flwr.superlink.cli", "flower_superlink"),
        *("--host", LOOPBACK, "--port", str(link_port)),
        *("--ssl-ca-certfile", str(ca)),
        *("--ssl-certfile", str(federation.server / "server.crt"), "--ssl-keyfile", str(federation.server / "server.key")),
        *("--enable-supernode-auth", "--database", str(federation.state / "superlink.db")),
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
        "--disable-runtime-dependency-installation",
    )
    _shrink(federation.state / "superlink.db")
    superlink = Child("SuperLink", link, environment, federation.logs / "superlink.log")
    children.add(superlink, lambda: wire.ready(address, ca), START_SECONDS)
    synchronise(federation, address)
    executor = flower_command(
        *("flwr.supercore.cli", "flower_superexec"),
        *("--runtime-api-address", address, "--root-certificates", str(ca), "--superexec-auth-secret-file", str(secret)),
    )
    children.add(Child("the executor", executor, environment, federation.logs / "executor.log"), lambda: True, START_SECONDS)
    door = Child("the front door", [proxy.program(), "-db", "-f", str(config)], dict(os.environ), federation.logs / "door.log")
    children.add(door, lambda: _listens(front), 20.0)


def synchronise(federation: Federation, address: str) -> None:
    """Let SuperLink know the sites of the folder, and no others."""
    from tunesmith_federated.deployment import wire

    with wire.Control(address, federation.ca / "ca.crt") as control:
        wanted = {
            certificates.public_pem(entry.public_key): (name, entry.public_key) for name, entry in federation.sites.items()
        }
        there = {node.public_key: node for node in control.nodes()}
        for key, node in there.items():
            if key not in wanted:
                control.unregister(node.id)
        for key, (name, public_key) in wanted.items():
            if key not in there:
                control.register(public_key, name)


def _shrink(database: Path) -> None:
    """Give back what finished runs have left free in SuperLink's database, while nobody uses it.

    SQLite fills such room again and never returns it: the file stays as large as all replies of a round once were. What is used
    is copied, which takes long where that is much: so only where more than half of the file is free.
    """
    if database.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database, timeout=5)) as line:
            free, pages = (line.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
            if 2 * free > pages:
                line.execute("VACUUM")


def _scripts(federation: Federation) -> Path:
    """A folder with the one command that the executor looks for by name, run by this interpreter."""
    folder = federation.state / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "flwr-serverapp"
    script.write_text(
        f"#!{sys.executable}\nfrom flwr.superlink.cli import flwr_serverapp\n\nflwr_serverapp()\n", encoding="utf-8"
    )
    script.chmod(0o700)
    return folder


@contextlib.contextmanager
def _alone(federation: Federation) -> Iterator[None]:
    """One process for each folder; the system gives the lock back however this one ends."""
    with (federation.state / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(_is_up(federation, running(federation))) from None
        yield


def _is_up(federation: Federation, found: Running | None) -> str:
    who = f"process {found.pid}, front door {found.listen}" if found else "another process is just starting or ending it"
    return f"the federation {federation.folder} is up already: {who}\n    → `tunesmith federation stop {federation.folder}`"


def _check_free(front: str) -> None:
    host, _, port = front.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise UserError(
                f"{front} cannot be listened on: {error.strerror}\n    → Name another with --listen or --port."
            ) from None


def _listens(front: str) -> bool:
    host, _, port = front.rpartition(":")
    try:
        with socket.create_connection((LOOPBACK if host in ANYWHERE else host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def process_start(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
