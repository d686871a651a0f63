"""The liveness mark of a run, so that two processes never write it at once: ``lock.json`` with a heartbeat.

On the same machine a dead holder is known at once by its process id; on another one by a heartbeat that has stopped.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tunesmith import storage
from tunesmith.errors import RunError, TunesmithError

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A holder on another machine is dead when its last heartbeat is older than this."""

SETTLE_SECONDS = 1.0
"""How long two processes that take a remote run at the same moment have to see each other's mark."""


class RunLock:
    """A run's lock: acquire it, or use it as a context manager."""

    def __init__(self, run_path: str, *, clock: Callable[[], float] = time.time) -> None:
        self.run_path = run_path
        self.place = storage.join(run_path, "lock.json")
        self._clock = clock
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this lock was acquired, and not released since."""
        return self._beating is not None

    def holder(self) -> dict[str, Any] | None:
        """Who writes the run now (``host``, ``pid``, ``time``), or None."""
        record = self._read()
        return record if record is not None and _alive(record, self._clock()) else None

    def acquire(self, force: bool = False) -> None:
        """Take the lock and keep it fresh. Raises :class:`RunError` where a living process has it, unless ``force``."""
        with _one_at_a_time(self.run_path):
            other = self.holder()
            if other is not None and not force:
                raise RunError(self._in_use(other))
            self._write()
        if not storage.is_local(self.run_path):
            time.sleep(SETTLE_SECONDS)  # no folder lock there: whoever wrote last keeps it
        if (self._read() or {}).get("token") != self._token:
            raise RunError(f"{self.run_path}: another process took this run at the same moment.\n    → Try again.")
        self._stop.clear()
        self._beating = threading.Thread(target=self._beat, name="run-heartbeat", daemon=True)
        self._beating.start()

    def release(self) -> None:
        """Give the lock back; nothing happens where another process has taken it."""
        self._stop.set()
        if self._beating is not None:
            self._beating.join(timeout=BEAT_SECONDS)
            self._beating = None
        if (self._read() or {}).get("token") == self._token:
            storage.delete(self.place)

    def __enter__(self) -> Self:
        if not self.held:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat(self) -> None:
        """Renew the mark until it is released or another process has taken it."""
        while not self._stop.wait(BEAT_SECONDS):
            if (self._read() or {}).get("token") != self._token:
                return
            with contextlib.suppress(TunesmithError, OSError):  # a full disk is told by whoever writes something that matters
                self._write()

    def _write(self) -> None:
        pid = os.getpid()
        mark = {"host": _host(), "pid": pid, "started": _started(pid), "time": self._clock(), "token": self._token}
        storage.write_json(self.place, mark)

    def _read(self) -> dict[str, Any] | None:
        try:
            record = storage.read_json(self.place)
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def _in_use(self, other: dict[str, Any]) -> str:
        where = "" if other["host"] == _host() else f" on {other['host'].split(' ')[0]}"
        age = max(0.0, self._clock() - other["time"])
        wait = f", or wait {STALE_SECONDS - age:.0f} s if it has died" if where else ""
        return (
            f"{self.run_path} is being written by process {other['pid']}{where} (last sign of life {age:.0f} s ago).\n"
            f"    → Let it finish or stop it{wait}."
        )


def _alive(record: dict[str, Any], now: float) -> bool:
    """Whether the process that left this mark still runs."""
    try:
        if record["host"] != _host():
            return bool(now - record["time"] <= STALE_SECONDS)
        os.kill(record["pid"], 0)
    except PermissionError:
        return True
    except (ProcessLookupError, KeyError, TypeError, OverflowError):
        return False
    return bool(record.get("started") == _started(record["pid"]))  # a process id is given to others later


def _host() -> str:
    """This machine, and the container where it has one of its own: process ids mean something only within both."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where the system does not say, or the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]  # fields 3 and 22 of proc(5); what precedes them ends with the bracket


@contextlib.contextmanager
def _one_at_a_time(run_path: str) -> Iterator[None]:
    """Two processes on one disk look and write one after the other: the folder itself is locked meanwhile."""
    if not storage.is_local(run_path):
        yield
        return
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    descriptor = os.open(storage.local_path(run_path), os.O_RDONLY)
    try:
        for _ in range(100):  # 10 s; some network file systems have no locks, and answer with an error for ever
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
