"""A site of two workers learns what a site of one learns, also where a worker is killed, and leaves nothing running."""

from __future__ import annotations

import contextlib
import csv
import ipaddress
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from support.data import texts
from support.federation import LocalGrid, federation_recipe, run
from support.models import tiny_bert
from tunesmith_federated.deployment.folder import create
from tunesmith_federated.deployment.group import FOLDER, LOG, Group
from tunesmith_federated.deployment.here import OwnData
from tunesmith_federated.deployment.site_config import SiteConfig, read
from tunesmith_federated.server_state import Book
from tunesmith_federated.site import Site
from tunesmith_federated.work import Done, Here, Job, Order, Worker

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(800)]

ROWS = texts(400, seed=7)
TRAINING = {"num_train_epochs": 6, "learning_rate": 0.05, "optim": "sgd", "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    """A site's folder with its keys, its rows, two workers, and a server that is away."""
    folder = create(tmp_path_factory.mktemp("fed") / "fed", ["a"], "localhost", port=9).folder / "sites" / "a"
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(ROWS)
    values = yaml.safe_load((folder / "site.yaml").read_text(encoding="utf-8"))
    values["resources"] = {"num_workers": 2, "cpus": 2}
    (folder / "site.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return read(folder / "site.yaml")


def workers_of(process: int) -> list[psutil.Process]:
    """The ranks below that process."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [child] if "RayTrainWorker" in " ".join(child.cmdline()) else []
    return found


def listeners(process: int) -> list[tuple[str, str]]:
    """What is below that process, Ray and ranks, and listens: its name, and at which address."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            heard = [one.laddr for one in child.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            found += [(f"{child.name()}:{at.port}", at.ip) for at in heard]
    return found


def beyond_this_machine(address: str) -> bool:
    """Whether others could reach it. Python 3.11 does not know that ::ffff:127.0.0.1 is 127.0.0.1."""
    return not ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def until(ready: Callable[[], Any], what: str, timeout: float = 120) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.1)
    return found


class Killing:
    """A worker one of whose ranks is killed while it is at the second round."""

    def __init__(self, group: Group) -> None:
        self._group, self.size = group, group.size

    def perform(self, job: Job, held: Any, order: Order) -> Done:
        if order.ask.kind != "train" or order.ask.round != 2:
            return self._group.perform(job, held, order)
        ranks = workers_of(os.getpid())
        assert len(ranks) == 2
        timer = threading.Timer(0.3, ranks[1].kill)
        timer.start()
        try:
            return self._group.perform(job, held, order)
        finally:
            timer.join()


def learned(worker: Worker, config: SiteConfig, folder: Path) -> Book:
    """A federation of this one site over three rounds of SCAFFOLD."""
    base = folder.parent / "base"
    if not base.exists():
        tiny_bert(base)
    recipe = federation_recipe(
        base, folder, TRAINING, sites=1, min_sites=1, local_epochs=2.0, method="scaffold", dtype="float32", round_timeout_s=200
    )
    site = Site("a", OwnData(config), folder / "state", worker=worker)
    return run(recipe, LocalGrid([site]), folder / "server", ROWS)


def assert_same(one: Book, other: Book) -> None:
    assert one.standing.round == other.standing.round == 3
    for mine, theirs in zip(one.tensors(), other.tensors(), strict=True):
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=5e-6, msg=name)
    assert [row["loss"] for row in one.rows()] == pytest.approx([row["loss"] for row in other.rows()], abs=1e-5)


def test_two_workers_learn_what_one_learns_also_where_one_is_killed(
    config: SiteConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tunesmith.site")
    alone = learned(Here(), config, tmp_path / "one")
    with Group(config) as group:
        assert_same(learned(group, config, tmp_path / "two"), alone)
        assert "lost" not in caplog.text
        heard = listeners(os.getpid())
        assert heard, "Ray listens somewhere: where nothing is seen, nothing is shown"
        assert [one for one in heard if beyond_this_machine(one[1])] == []
        assert_same(learned(Killing(group), config, tmp_path / "killed"), alone)
        assert re.search(r"the workers were lost: worker \d: its process died: it was killed", caplog.text)
        assert caplog.text.count("2 workers are there") == 2
        ranks = workers_of(os.getpid())
    assert len(ranks) == 2
    until(lambda: not any(rank.is_running() for rank in ranks), "the ranks' end", 20)
    assert not (config.state_dir / FOLDER).exists()


@pytest.fixture
def joined(config: SiteConfig, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """``tunesmith site join``, whose workers are there, at the head of a process group as in a terminal."""
    log = tmp_path / "site.log"
    with log.open("wb") as written:
        command = [sys.executable, "-m", "tunesmith.cli", "site", "join", "--config", str(config.path)]
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        until(lambda: "trying on" in log.read_text() or process.poll() is not None, "the site")
        assert process.poll() is None, log.read_text()
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_site_that_ends_leaves_no_worker_and_its_log_knows_nothing_of_ray(
    joined: tuple[subprocess.Popen[bytes], Path], config: SiteConfig, how: signal.Signals
) -> None:
    process, log = joined
    assert len(workers_of(process.pid)) == 2
    below = psutil.Process(process.pid).children(recursive=True)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
        assert process.wait(60) == 130
        assert not (config.state_dir / FOLDER).exists()
    else:
        process.kill()
        process.wait(10)
    # Killed with SIGKILL, Ray's two agents, which hold no rows, try to tell the GCS for a minute, and it is gone too.
    agents = (
        [] if how == signal.SIGINT else [one for one in below if one.name() in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]
    )
    _, alive = psutil.wait_procs([one for one in below if one not in agents], timeout=30)
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.kill()
    assert not alive
    if how == signal.SIGKILL:  # the next start of this site would do it
        shutil.rmtree(os.readlink(config.state_dir / FOLDER), ignore_errors=True)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert re.search(r"2 workers are there after \d+ s", "\n".join(lines))
    known = r"20\d\d-\S+ \S+ (starting 2 workers|2 workers are there|.*trying on$)|interrupted$|$"
    assert [line for line in lines if not re.match(known, line)] == []
    assert (config.state_dir / LOG).stat().st_size > 0
