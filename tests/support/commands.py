"""The ``tunesmith`` command in processes of its own, as a user runs it: watched, interrupted, killed, never left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TUNESMITH = str(Path(sys.executable).parent / "tunesmith")
POLL = 0.05
"""Seconds between two looks at what a command has done."""

_WORKER = re.compile(r"pid=(\d+)\) world_rank=(\d+)")


class Command:
    """``tunesmith ARGUMENTS``, begun in ``folder``; what it writes is in :attr:`output`. As a context it leaves no process."""

    def __init__(self, *arguments: str, folder: Path, environment: Mapping[str, str] = {}) -> None:
        import psutil

        self._said = folder / f"said-{time.monotonic_ns()}.txt"
        with self._said.open("wb") as screen:
            self._process = subprocess.Popen(
                [TUNESMITH, *arguments],
                cwd=folder,
                env={**os.environ, **environment},
                stdout=screen,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._watched = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return self._said.read_text(encoding="utf-8")

    def wait_until(self, ready: Callable[[], object], what: str, timeout: float = 240) -> None:
        """Returns once ``ready`` says so; fails where the command ends before, or after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not ready():
            code = self._process.poll()
            assert code is None, f"the command ended with {code} before {what}, and wrote:\n{self.output}"
            assert time.monotonic() < deadline, f"{what} did not come within {timeout} s. The command wrote:\n{self.output}"
            time.sleep(POLL)

    def finish(self, timeout: float = 240) -> int:
        """Waits for its end; returns the exit code."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the command did not end within {timeout} s, and wrote:\n{self.output}") from None

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to every process of the foreground group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM, as a service manager or a batch system sends it to the command alone."""
        self._process.terminate()

    def descendants(self) -> list[Any]:
        """The processes that it has started, and those that they have (``psutil.Process``)."""
        import psutil

        try:
            return list(self._watched.children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """``kill -9`` of the command and of everything it has started."""
        import psutil

        for process in [*self.descendants(), self._watched]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(30)


def tunesmith(*arguments: str, folder: Path, timeout: float = 240) -> tuple[int, str]:
    """Runs the command to its end; returns its exit code and everything it wrote."""
    with Command(*arguments, folder=folder) as command:
        code = command.finish(timeout)
        return code, command.output


def worker_pids(log: Path) -> dict[int, int]:
    """The process of each rank, as Ray Train told the run's log; of the latest start where there were several."""
    return {int(rank): int(pid) for pid, rank in _WORKER.findall(log.read_text(encoding="utf-8"))}


def learning(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A run's history without what depends on the clock: what must be equal where training was the same."""
    clock = {"time", "examples_per_second", "tokens_per_second", "peak_memory_mb"}
    return [{name: value for name, value in line.items() if name not in clock} for line in history]
