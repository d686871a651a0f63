"""Child processes that belong together: logs in files, started again when they die, gone when this process is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.errors import TunesmithError

STOP_SECONDS = 15.0
"""Between asking a process to end and killing it."""
RESTARTS, RESTARTS_WITHIN = 5, 300.0
"""A child that dies more often than so many times within so many seconds is given up."""
TAIL_LINES = 12


@dataclass
class Child:
    """A process that is kept running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    deaths: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, at the head of a process group of its own; its log is added to."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509  # prctl alone, and before any thread of ours
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def tail(self) -> str:
        """The last lines of its log, indented."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 20_000))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])

    def stop(self, within: float = STOP_SECONDS) -> None:
        """End it, and what it has started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(within)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Children:
    """Started in order, stopped in the opposite one."""

    def __init__(self) -> None:
        self.all: list[Child] = []

    def add(self, child: Child, ready: Callable[[], bool], within: float) -> None:
        """Start a child and wait for it. Raises :class:`TunesmithError` with its last words where it dies or is not ready."""
        self.all.append(child)
        child.start()
        deadline = time.monotonic() + within
        while not ready():
            if not child.alive:
                code = child.process.returncode if child.process else None
                raise TunesmithError(f"{child.name} has ended (exit code {code}); the end of {child.log}:\n{child.tail()}")
            if time.monotonic() > deadline:
                raise TunesmithError(
                    f"{child.name} was not ready within {within:.0f} s; the end of {child.log}:\n{child.tail()}"
                )
            time.sleep(0.1)

    def revive(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """Start again what has died. Raises :class:`TunesmithError` where one dies again and again."""
        for child in self.all:
            if child.alive:
                continue
            code = child.process.returncode if child.process else None
            child.deaths = [*(one for one in child.deaths if now() - one < RESTARTS_WITHIN), now()]
            if len(child.deaths) > RESTARTS:
                often = f"{len(child.deaths)} times in {RESTARTS_WITHIN:.0f} s"
                raise TunesmithError(f"{child.name} has died {often}; the end of {child.log}:\n{child.tail()}")
            say(f"{child.name} has ended (exit code {code}); it is started again. Its log: {child.log}")
            child.stop(0)
            child.start()

    def stop(self) -> None:
        """End all."""
        for child in reversed(self.all):
            child.stop()


def flower_command(module: str, function: str, *arguments: str) -> list[str]:
    """One of Flower's commands with this interpreter, wherever its scripts lie."""
    return [sys.executable, "-c", f"from {module} import {function}; {function}()", *arguments]


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux, what makes a child end when this process dies, however it dies."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
