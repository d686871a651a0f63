"""A service under load: a replica is killed, versions come and go, it is told to stop; no request that it took is lost."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest

from support.runs import finished_run
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

COMMAND = [sys.executable, "-m", "tunesmith.cli", "serve"]
CLIENTS = 4
TIMEOUT = "serving.timeout_s=120"
"""A killed replica was back after 42 s on two cores that thirty processes shared."""
PATIENCE = 130.0


@dataclass
class Service:
    """A detached service of version 1 of a model, and the runs that it may be updated with."""

    url: str
    key: str
    pid: int
    log: Path
    environment: dict[str, str]
    runs: list[Run]

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def replicas(self, kind: str) -> list[int]:
        """Processes of the service's replicas of a deployment (``model``, ``door``)."""
        family = psutil.Process(self.pid).children(recursive=True)
        found = []
        for one in family:
            with contextlib.suppress(psutil.Error):
                if any(part.startswith("ray::ServeReplica") and kind in part for part in one.cmdline()):
                    found.append(one.pid)
        return sorted(found)

    def front(self) -> list[int]:
        """Processes of HAProxy."""
        found = []
        for one in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(part.endswith("haproxy.cfg") for part in one.cmdline()) and "haproxy" in one.name():
                    found.append(one.pid)
        return sorted(found)


@dataclass
class Load:
    """Clients that ask one thing after the other until they are told to end."""

    service: Service
    apart: bool = False
    """A connection for each request."""
    versions: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[float, str, str]] = field(default_factory=list)
    """When each began, its id, and what happened."""

    def __enter__(self) -> Self:
        self._end, self._id = threading.Event(), secrets.token_hex(4)
        self._threads = [threading.Thread(target=self._ask, args=(k,), daemon=True) for k in range(CLIENTS)]
        for one in self._threads:
            one.start()
        self.wait(5 * CLIENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for one in self._threads:
            one.join(PATIENCE)
            assert not one.is_alive(), "a client hangs"

    def wait(self, answers: int, within: float = 60.0) -> None:
        """Until so many more have come."""
        want, deadline = self.versions.total() + answers, time.monotonic() + within
        while self.versions.total() < want:
            assert time.monotonic() < deadline, f"{self.versions}, {self.failures[:5]}"
            time.sleep(0.01)

    def _ask(self, me: int) -> None:
        headers = {"X-API-Key": self.service.key, "X-Sticky-Key": f"client-{me}"}
        if self.apart:
            headers["Connection"] = "close"
        with httpx.Client(base_url=self.service.url, headers=headers, timeout=PATIENCE, trust_env=False) as client:
            for count in range(100_000):
                if self._end.is_set():
                    return
                begun, name = time.monotonic(), f"{self._id}-{me}-{count}"
                try:
                    answer = client.post(
                        "/predict/m", json={"inputs": [f"word{count % 50} word2"]}, headers={"X-Request-ID": name}
                    )
                except httpx.HTTPError as error:
                    self.failures.append((begun, name, type(error).__name__))
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self.versions[answer.json()["version"]] += 1
                else:
                    self.failures.append((begun, name, f"{answer.status_code} {answer.text[:200]}"))
                    time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has asked for since is left as a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`tunesmith serve --detach` on a Ray of its own, started once for all of these tests."""
    folder = tmp_path_factory.mktemp("rollout")
    finished = []
    for name, steps in (("one", 12), ("two", 1)):
        (folder / name).mkdir()
        finished.append(finished_run(folder / name, "text-classification", steps=steps))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
    started = subprocess.run(
        [*COMMAND, f"m={finished[0].path}", "--detach", "serving.num_cpus=0.5", "serving.drain_s=10", TIMEOUT],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout + started.stderr
    key = started.stdout.partition("shown this once: ")[2].split()[0]
    (file,) = (folder / "state" / "tunesmith" / "serve").glob("*.json")
    record = json.loads(file.read_text())
    try:
        yield Service(record["url"], key, record["pid"], Path(record["log"]), environment, finished)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record["pid"], signal.SIGTERM)
        deadline = time.monotonic() + 60
        while runs(record["pid"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        if runs(record["pid"]):
            os.kill(record["pid"], signal.SIGKILL)


def test_a_replica_that_is_killed_costs_no_accepted_request(service: Service) -> None:
    (before,) = service.replicas("model")
    with Load(service) as load:
        os.kill(before, signal.SIGKILL)
        load.wait(10 * CLIENTS, within=PATIENCE)
    assert load.failures == []
    assert service.replicas("model") != [before]


def test_versions_come_and_go_and_no_request_fails(service: Service) -> None:
    """An update that is promoted, and a canary that is rolled back; the door and what is before it are the same all along."""
    door, front = service.replicas("door"), service.front()
    with Load(service) as load:
        assert "version 2 answers all requests" in service.command(
            "update", f"m={service.runs[1].path}", "serving.num_cpus=0.5", TIMEOUT
        )
        load.wait(2 * CLIENTS)
        assert "version 1 is gone" in service.command("promote", "m")
        promoted = Counter(load.versions)
        load.wait(2 * CLIENTS)
        assert load.versions["1"] - promoted["1"] == 0
        assert promoted["2"] > 0

        canary = ["update", f"m={service.runs[0].path}", "serving.num_cpus=0.5", TIMEOUT, "--canary"]
        service.command(*canary, "50")
        load.wait(10 * CLIENTS)
        service.command(*canary, "100")
        load.wait(5 * CLIENTS)
        status = service.command("status")
        assert "version 3 beside 2, canary 100 %" in status
        assert "% agree" in status
        assert "version 3 is gone" in service.command("rollback", "m")
        rolled = Counter(load.versions)
        load.wait(2 * CLIENTS)
        assert load.versions["3"] - rolled["3"] == 0
    assert load.failures == []
    assert set(load.versions) == {"1", "2", "3"}
    assert (service.replicas("door"), service.front()) == (door, front)
    pairs = [json.loads(line) for line in service.log.with_suffix(".pairs.jsonl").read_text().splitlines()]
    assert {(one["answered"], one["mirrored"]) for one in pairs} == {("3", "2")}
    deadline = time.monotonic() + 30
    while len(service.replicas("model")) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_door_that_dies_comes_back_as_it_was(service: Service) -> None:
    """The list that verbs have changed outlives the process that holds it: version 2, not the 1 that it was started with."""
    (before,) = service.replicas("door")
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post(
                f"{service.url}/predict/m", json={"inputs": ["word1"]}, headers={"X-API-Key": service.key}, timeout=10
            )
            if answer.status_code == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert answer.json()["version"] == "2"


def test_told_to_stop_it_answers_whatever_it_has_accepted(service: Service) -> None:
    """What fails was refused: none of it began before the end did, none stands in the log, and hardly any was connected."""
    with Load(service, apart=True) as load:
        told = time.monotonic()
        service.command("stop")
    assert load.failures, "the service went on"
    accepted = {one["id"] for one in map(json.loads, service.log.read_text().splitlines()) if "id" in one}
    assert [one for one in load.failures if one[1] in accepted] == []
    assert [one for one in load.failures if one[0] < told] == []
    others = [what for _, _, what in load.failures if what != "ConnectError"]
    assert set(others) <= {"ReadError", "RemoteProtocolError"}
    assert len(others) <= CLIENTS, "a listener that closes resets what waits for it, at most a connection of each client"
    assert not runs(service.pid)
