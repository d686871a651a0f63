"""A service on this machine from its start to its end, and the record by which ``status`` and ``stop`` find it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import ClusterError, ModelError, TunesmithError, UserError
from tunesmith_serving.front import LOOPBACK
from tunesmith_serving.plan import APPLICATION, Planned, check_room, configuration, cpus_here

START_WITHIN = 300.0
"""Seconds in which a detached service must be ready (20 s on two idle cores)."""
LOOK_EVERY = 2.0


@dataclass(frozen=True)
class Record:
    """A running service, as it is found again."""

    url: str
    pid: int
    """Its process; 0 for one that a cluster runs."""
    on: str | None
    models: tuple[str, ...]
    log: str
    started: float
    born: int = 0
    """When the process began, as :func:`_born` has it: another one may have its number after a crash; 0 is not known."""

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rsplit(":", 1)[1])

    def alive(self) -> bool:
        """Whether its process is there, and is that process still."""
        if not self.pid:
            return True
        if self.born and _born(self.pid) not in (0, self.born):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def ready(self) -> bool:
        """Whether it would answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def file(self) -> Path:
        """Where it is written down."""
        return state_folder() / f"{self.port}.json"


def state_folder() -> Path:
    """``$XDG_STATE_HOME/tunesmith/serve``, by default in ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tunesmith" / "serve"


def records() -> list[Record]:
    """The services that run, the oldest first; what is left of dead ones is removed."""
    found = []
    for file in sorted(state_folder().glob("*.json")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            record = Record(**{**values, "models": tuple(values["models"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if record.alive():
            found.append(record)
        else:
            file.unlink(missing_ok=True)
    return sorted(found, key=lambda one: one.started)


def choose_port(port: int | None) -> int:
    """The port, if it is free; without one any that is. Raises :class:`UserError`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port or 0))
        except OSError as error:
            mine = next((one for one in records() if one.port == port), None)
            who = f" by {', '.join(mine.models)} (`tunesmith serve stop {port}` ends it)" if mine else ""
            raise UserError(
                f"port {port} is in use{who}: {error.strerror}.\n    → Name another, or leave --port away."
            ) from error
        return int(probe.getsockname()[1])


def run(models: Sequence[Planned], *, keys: str, port: int, log_folder: Path, told: Callable[[str], None]) -> None:
    """Serve on a Ray of this machine until the process is told to end; then drain, and leave nothing behind.

    Raises:
        ModelError: a model that cannot be loaded.
    """
    from tunesmith.cluster.connect import connect
    from tunesmith_serving import front

    url, drain = f"http://{LOOPBACK}:{port}", max(one.settings.drain_s for one in models)
    log = str(log_folder / f"{port}.jsonl")
    log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_room(models, cpus_here())
    with _until_told() as end, front.fast_path(drain):
        import ray.serve  # noqa: F401  (after the environment is set, which it reads as it is imported)

        with connect("local", log_file=str(log_folder / f"{port}.ray.log")) as here, _record(url, None, models, log):
            check_room(models, cpus_here(), here.gpus)
            try:
                _deploy(configuration(models, keys, log, cpus_here()), port)
                end.watch()
                told(url)
                _watch(url, end)
            finally:
                with _quiet_end():
                    _end_serve()


def deploy(models: Sequence[Planned], *, keys: str, port: int, on: str) -> Record:
    """Serve on a cluster that runs already, and leave it there.

    Raises:
        ClusterError: the cluster cannot be reached, or its Ray Serve runs something that is not ours.
    """
    from tunesmith.cluster.connect import connect

    with connect(on, log_file=str(state_folder() / f"{port}.ray.log")) as cluster:
        others = _others()
        if others:
            raise ClusterError(
                f"Ray Serve at {on} runs {', '.join(others)} already; it is left as it is.\n"
                "    → Serve on another cluster, or leave --on away to serve on this machine."
            )
        check_room(models, sum(node.total.get("CPU", 0) for node in cluster.nodes()), cluster.gpus)
        _deploy(configuration(models, keys), port)
        record = Record(f"http://{LOOPBACK}:{port}", 0, on, _names(models), "", time.time())
        _write(record)
    return record


def stop(record: Record, within: float = 90.0) -> None:
    """End a service: it drains first. Raises :class:`TunesmithError` where it does not end."""
    if record.on is not None:
        from tunesmith.cluster.connect import connect

        with connect(record.on):
            from ray import serve

            serve.delete(APPLICATION)
            if not _others():
                _end_serve()
        record.file.unlink(missing_ok=True)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + within
    while _runs(record.pid):
        if time.monotonic() > deadline:
            raise TunesmithError(f"the service at {record.url} (process {record.pid}) has not ended within {within:g} s")
        time.sleep(0.1)
    record.file.unlink(missing_ok=True)


def detach(arguments: Sequence[str], port: int) -> Record:
    """Start ``tunesmith serve`` with these arguments as a process of its own, and wait until it is ready.

    Raises:
        TunesmithError: it ended, or was not ready in time; the message has the end of its output.
    """
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    said = folder / f"{port}.out"
    command = [sys.executable, "-m", "tunesmith.cli", "serve", "start", *arguments, "--port", str(port)]
    with said.open("wb") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline and child.poll() is None:
        record = next((one for one in records() if one.port == port and one.pid == child.pid), None)
        if record is not None and record.ready():
            return record
        time.sleep(0.2)
    text = said.read_text(encoding="utf-8", errors="replace").strip()
    if child.poll() is None:
        child.terminate()
        raise TunesmithError(f"the service was not ready within {START_WITHIN:g} s; see {said}")
    raise (UserError if child.returncode == 2 else TunesmithError)(text.removeprefix("error: ") or f"it ended: see {said}")


def _deploy(config: dict[str, Any], port: int) -> None:
    """Start Serve and the application. Raises :class:`ModelError` where a model cannot be loaded."""
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    from tunesmith_serving.deployments import build

    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=LOOPBACK, port=port))
    try:
        serve.run(build(config), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise ModelError(f"the service did not start: {_why(error)}") from error


def _why(error: RuntimeError) -> str:
    """The last line of what a replica's constructor said, which names the mistake."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line and not line.startswith("File")]
    return (told or lines or ["no reason given"])[-1]


def _end_serve() -> None:
    """End Ray Serve and all its processes, which drain first."""
    from ray import serve

    shutdown: Callable[[], None] = serve.shutdown
    shutdown()


def _others() -> list[str]:
    """Applications of the cluster's Serve that are not ours."""
    from ray import serve

    return sorted(name for name in serve.status().applications if name != APPLICATION)


def _watch(url: str, end: threading.Event) -> None:
    """Wait until the process is told to end. Raises :class:`TunesmithError` where the service has died under it."""
    failed = 0
    while not end.wait(LOOK_EVERY):
        try:
            with urllib.request.urlopen(f"{url}/v2/health/live", timeout=10):  # noqa: S310
                failed = 0
        except (OSError, urllib.error.URLError) as error:
            failed += 1
            if failed >= 15:
                raise TunesmithError(f"the service at {url} does not answer any more: {error}") from error


class _End(threading.Event):
    """Set by Ctrl-C or SIGTERM once the service runs, so that it drains; before that, and a second time, they interrupt."""

    def __init__(self) -> None:
        super().__init__()
        self.serving = False

    def watch(self) -> None:
        """From now on the first signal only sets the event. Ray has put handlers of its own there as it started."""
        self.serving = True
        self.listen()

    def listen(self) -> None:
        """Take the two signals over, where this is the thread that gets them."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._tell)

    def _tell(self, number: int, frame: Any) -> None:
        if self.is_set() or not self.serving:
            raise KeyboardInterrupt
        self.set()


@contextlib.contextmanager
def _until_told() -> Iterator[_End]:
    """The end of the service; the process's own handling of signals comes back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    end = _End()
    end.listen()
    try:
        yield end
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _record(url: str, on: str | None, models: Sequence[Planned], log: str) -> Iterator[None]:
    record = Record(url, os.getpid(), on, _names(models), log, time.time(), _born(os.getpid()))
    _write(record)
    try:
        yield
    finally:
        record.file.unlink(missing_ok=True)


def _write(record: Record) -> None:
    record.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    record.file.write_text(json.dumps(asdict(record)), encoding="utf-8")


def _names(models: Sequence[Planned]) -> tuple[str, ...]:
    """Each model with its version, and what computes it where that is not PyTorch."""
    return tuple(
        f"{one.name}@{one.version}" + (f" ({one.settings.backend})" if one.settings.backend != "torch" else "")
        for one in models
    )


def _born(pid: int) -> int:
    """Clock ticks from the machine's start to the process's (proc(5)); 0 where there is no ``/proc``, or no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # a child of ours that has ended, and that nobody has asked for
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
    return True


@contextlib.contextmanager
def _quiet_end() -> Iterator[None]:
    """What fails while a service ends is of no use to anybody."""
    with contextlib.suppress(Exception):
        yield
