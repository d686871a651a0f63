"""A service on this machine from its start to its end, and the record by which ``status`` and ``stop`` find it."""

from __future__ import annotations

import contextlib
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
from pathlib import Path
from typing import Any

from tunesmith.cluster.ports import LOOPBACK
from tunesmith.errors import ClusterError, TunesmithError, UserError
from tunesmith_serving import apps
from tunesmith_serving.plan import START_WITHIN, Planned, check_room, cpus_here
from tunesmith_serving.record import Record, born, names, records, state_folder, write

LOOK_EVERY = 2.0
END_WITHIN = 75.0
"""Seconds in which a service ends that has answered what it has (5 s on two idle cores)."""


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
    timeout = max(one.settings.timeout_s for one in models)
    log = str(log_folder / f"{port}.jsonl")
    log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_room(models, cpus_here())
    with _until_told() as end, front.fast_path(drain, timeout) as folder:
        import ray.serve  # noqa: F401  (after the environment is set, which it reads as it is imported)

        with connect("local", log_file=str(log_folder / f"{port}.ray.log")) as here:
            check_room(models, cpus_here(), here.gpus)
            with _record(url, here.address, models, log):
                try:
                    apps.deploy(models, keys, port, log, cpus_here())
                    if folder is not None:
                        front.await_route(folder)
                    end.watch()
                    told(url)
                    _watch(url, end)
                finally:
                    with apps.quiet():
                        apps.end(folder, drain)


def deploy(
    models: Sequence[Planned], *, keys: str, port: int, on: str, before: Record | None = None, any_port: bool = False
) -> Record:
    """Serve on a cluster that runs already, and leave it there.

    ``before`` is the service that this one takes the place of. Where nobody has asked for the port (``any_port``), that of a
    Ray Serve which runs there is taken.

    Raises:
        ClusterError: the cluster cannot be reached, or its Ray Serve runs something that is not ours.
        UserError: its Ray Serve listens at another port already, or it has not enough that is free.
    """
    from tunesmith.cluster.connect import connect

    with connect(on, log_file=str(state_folder() / f"{port}.ray.log")) as cluster:
        others, ours = apps.running()
        if others:
            raise ClusterError(
                f"Ray Serve at {on} runs {', '.join(others)} already; it is left as it is.\n"
                "    → Serve on another cluster, or leave --on away to serve on this machine."
            )
        there = apps.listens_at()
        if there not in (None, port) and not any_port:
            raise UserError(
                f"--port {port}: Ray Serve at {on} listens at {there}, and keeps its port while it runs.\n"
                "    → Leave --port away, or stop what it serves first (`tunesmith serve stop`)."
            )
        port = there or port
        nodes = cluster.nodes()
        check_room(models, sum(node.total.get("CPU", 0) for node in nodes), cluster.gpus)
        if not ours:  # one that is there gives its own up
            check_room(models, *apps.free(nodes), free=True)
        apps.deploy(models, keys, port)
        known = next((one for one in records() if before is not None and one.port == before.port), before)
        gate_files = known.gate_files if known is not None else {}
        record = Record(f"http://{LOOPBACK}:{port}", 0, on, names(models), "", time.time(), gate_files=gate_files)
        write(record)
    return record


def stop(record: Record) -> None:
    """End a service: it drains first. Raises :class:`TunesmithError` where it does not end in its time."""
    if record.on is not None:
        from tunesmith.cluster.connect import connect

        with connect(record.on):
            from ray import serve

            others, ours = apps.running()
            for name in sorted(ours):  # the door first: its requests need the models
                serve.delete(name)
            if not others:
                apps.end_serve()
        record.file.unlink(missing_ok=True)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    within = record.drain_s + END_WITHIN
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
    try:
        while time.monotonic() < deadline and child.poll() is None:
            record = next((one for one in records() if one.port == port and one.pid == child.pid), None)
            if record is not None and record.ready():
                return record
            time.sleep(0.2)
    except KeyboardInterrupt:  # of nobody's use any more
        _stop_child(child)
        raise
    text = said.read_text(encoding="utf-8", errors="replace").strip()
    if child.poll() is None:
        child.terminate()
        raise TunesmithError(f"the service was not ready within {START_WITHIN:g} s; see {said}")
    raise (UserError if child.returncode == 2 else TunesmithError)(text.removeprefix("error: ") or f"it ended: see {said}")


def _stop_child(child: subprocess.Popen[bytes]) -> None:
    """End a service that is coming up, with its Ray."""
    child.terminate()
    try:
        child.wait(30)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait(10)


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
def _record(url: str, ray: str, models: Sequence[Planned], log: str) -> Iterator[None]:
    drain = max(one.settings.drain_s for one in models)
    record = Record(url, os.getpid(), None, names(models), log, time.time(), born(os.getpid()), ray, drain_s=drain)
    write(record)
    try:
        yield
    finally:
        record.file.unlink(missing_ok=True)


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
