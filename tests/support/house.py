"""A federation of real processes on loopback, with sites that do next to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tunesmith.cluster.ports import free_port
from tunesmith_federated.deployment import jobs, up
from tunesmith_federated.deployment.folder import Federation

TESTS = Path(__file__).parents[1]


def tunesmith(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    command = [sys.executable, "-m", "tunesmith.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, env=environment())
    return done.returncode, done.stdout + done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS)}


def until(ready: Callable[[], Any], what: str, timeout: float = 90) -> Any:
    """What ``ready`` gives, once it gives something."""
    deadline = time.monotonic() + timeout
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.1)
    return found


@dataclass
class House:
    """A federation that is up, and its sites."""

    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def federation(self) -> Federation:
        return Federation.open(self.folder)

    @property
    def superlink(self) -> str:
        return up.require(self.federation).superlink

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name

    def log(self, name: str) -> str:
        return self.site(name).joinpath("log.txt").read_text(encoding="utf-8")

    def join(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a site and wait until it has joined; ``options`` are those of :mod:`support.standin`."""
        with self.site(name).joinpath("log.txt").open("wb") as log:
            command = [sys.executable, "-m", "support.standin", str(self.site(name) / "site.yaml"), *options]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        until(lambda: "joined" in self.log(name), f"{name} joining: {self.log(name)}")
        return self.processes[name]

    def leave(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(30)

    def client(self, name: str | None) -> httpx.Client:
        """With the authority's certificate, and a site's own where one is named."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca" / "ca.crt"))
        if name is not None:
            context.load_cert_chain(self.site(name) / "site.crt", self.site(name) / "site.key")
        return httpx.Client(base_url=f"https://localhost:{self.port}", verify=context, timeout=10)

    def submit(self, folder: Path, **spec: Any) -> int:
        folder.mkdir(exist_ok=True)
        (folder / "out.json").unlink(missing_ok=True)
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        return jobs.submit(folder, self.folder, "support.standin:server")


def rounds(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((folder / "out.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not yet written, or just being written
        return []


@contextlib.contextmanager
def standing(folder: Path, sites: str) -> Iterator[House]:
    """A federation of these sites (``a,b,c``) that is up; none has joined."""
    port = free_port()
    assert tunesmith("federation", "init", str(folder), "--sites", sites, "--port", str(port))[0] == 0
    code, said = tunesmith("federation", "up", str(folder), "--detach")
    assert code == 0, said
    made = House(folder, port)
    try:
        yield made
    finally:
        for name in list(made.processes):
            made.leave(name, signal.SIGKILL)
        tunesmith("federation", "stop", str(folder))
