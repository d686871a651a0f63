"""A real federation on this machine: three sites with keys of their own; everything is killed once, and a site's disk fills up.

What comes out is the model of an undisturbed run, to the last bit.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from safetensors.torch import load_file

from support.data import texts
from support.models import tiny_bert
from tunesmith.cluster.ports import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

NAMES = ("berlin", "lyon", "turin")
SIGNED = "turin"
"""Allows what the board has signed; the others allow the recipe by its fingerprint."""
MOUNT = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs"]
SMALL = "lyon"
"""Its state lies on a disk of 6 MB, where one may be mounted."""


def until(ready: Callable[[], Any], what: str, timeout: float = 120) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.05)
    return found


@dataclass
class House:
    """A folder with a recipe, a federation that is up, and its sites."""

    folder: Path
    sites: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    disk: Path | None = None
    """A small one, of the site SMALL; None where none can be mounted."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tunesmith.cli", *arguments]

    def run(self, *arguments: str, timeout: float = 240) -> tuple[int, str]:
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def join(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = self.command("site", "join", "--config", f"fed/sites/{name}/site.yaml")
            self.sites[name] = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def federate(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command, in the background."""
        with (self.folder / "federate.log").open("ab") as log:
            return subprocess.Popen(
                self.command("federate", "recipe.yaml", "--superlink", "fed", *arguments),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def told(self) -> str:
        """What the commands in the background have said."""
        return " ".join((self.folder / "federate.log").read_text(encoding="utf-8").split())

    def latest(self) -> Path:
        return max((self.folder / "runs").glob("shared-federated-*"), key=lambda place: place.name)

    def rounds(self, run: Path) -> int:
        place = run / "federation" / "state.json"
        found = re.search(r'"round": (\d+)', place.read_text(encoding="utf-8")) if place.exists() else None
        return int(found[1]) if found else 0

    def weights(self, run: Path) -> dict[str, Any]:
        return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    made = House(folder)
    tiny_bert(folder / "base", dropout=0.1)
    rows = texts(360, seed=5)
    write(folder / "test.csv", rows[:90])
    recipe = {
        "name": "shared",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"test": "test.csv"},
        "training": {"num_train_epochs": 6, "learning_rate": 3e-3, "per_device_train_batch_size": 8, "output_dir": "runs"},
        "federation": {"method": "scaffold", "min_sites": 3, "round_timeout_s": 120, "min_examples": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    code, said = made.run("federation", "init", "fed", "--sites", ",".join(NAMES), "--port", str(free_port()))
    assert code == 0, said
    code, said = made.run("site", "fingerprint", "recipe.yaml")
    assert code == 0, said
    fingerprint = re.search(r"[0-9a-f]{40}", said)
    assert fingerprint is not None, said
    code, signer = made.run("federation", "signer", "board.key")
    assert code == 0, signer
    assert made.run("federation", "sign", "recipe.yaml", "--key", "board.key")[0] == 0
    for index, name in enumerate(NAMES):
        place = folder / "fed" / "sites" / name
        write(place / "data.csv", rows[90 + 90 * index : 180 + 90 * index])
        values = yaml.safe_load((place / "site.yaml").read_text(encoding="utf-8"))
        by = {"signers": {"board": signer.strip()}} if name == SIGNED else {"recipes": [fingerprint[0]]}
        values["allow"] = {**by, "base_models": ["*"]}
        values["limits"]["min_examples"] = 2
        (place / "site.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    disk = folder / "fed" / "sites" / SMALL / "state"
    disk.mkdir()
    if not os.getuid() and shutil.which("mount"):
        made.disk = disk if subprocess.run([*MOUNT, str(disk)], check=False, timeout=20).returncode == 0 else None
    code, said = made.run("federation", "up", "fed", "--detach")
    assert code == 0, said
    try:
        for name in NAMES:
            made.join(name)
        for name in NAMES:
            until(lambda name=name: "joined" in made.log(name), f"{name} joining")
        yield made
    finally:
        for process in made.sites.values():
            process.terminate()
        for process in made.sites.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        made.run("federation", "stop", "fed")
        if made.disk is not None:
            subprocess.run(["umount", "--lazy", str(made.disk)], check=True, timeout=20)  # prepared data is still mapped


def write(place: Path, rows: list[dict[str, Any]]) -> None:
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def undisturbed(house: House) -> Path:
    code, said = house.run("federate", "recipe.yaml", "--superlink", "fed")
    assert code == 0, said
    return house.latest()


def test_a_recipe_that_the_owners_forbid_is_refused_by_name(house: House) -> None:
    (house.folder / "other.yaml").write_bytes((house.folder / "recipe.yaml").read_bytes())  # without the signature beside it
    code, said = house.run("federate", "other.yaml", "--superlink", "fed", "--wait", "12", "training.learning_rate=0.1")
    assert code == 2, said
    said = " ".join(said.split())
    assert "0 of at least 3 sites take part" in said
    for name in NAMES:
        assert re.search(rf"{name}: the recipe [0-9a-f]{{40}} is not among those that are allowed", said)
    assert "refused" in house.run("site", "audit", "--config", "fed/sites/berlin/site.yaml")[1]


def test_a_real_federation_gives_an_ordinary_run(house: House, undisturbed: Path) -> None:
    code, said = house.run("show", str(undisturbed))
    assert code == 0, said
    assert (undisturbed / "rounds.parquet").exists()
    assert "3 sites trained one model in 6 rounds by scaffold" in (undisturbed / "report.html").read_text(encoding="utf-8")


def test_no_row_of_a_site_is_ever_at_the_server(house: House, undisturbed: Path) -> None:
    with (house.folder / "fed/sites/lyon/data.csv").open(encoding="utf-8") as file:
        words = {row["text"] for row in csv.DictReader(file) if len(row["text"].split()) > 6}
    assert len(words) > 30
    places = [*undisturbed.rglob("*"), *(house.folder / "fed").glob("state/**/*"), *(house.folder / "fed/server").rglob("*")]
    for place in places:
        if place.is_file():
            content = place.read_bytes()
            assert not any(text.encode() in content for text in words), place


def test_a_run_in_which_everything_was_killed_once_gives_the_same_model(house: House, undisturbed: Path) -> None:
    driver = house.federate("--new")
    try:
        run = until(lambda: house.latest() if house.latest() != undisturbed else None, "the run")
        until(lambda: house.rounds(run) >= 1, "round 1")
        house.sites["lyon"].send_signal(signal.SIGKILL)
        house.sites.pop("lyon").wait(20)
        house.join("lyon")
        until(lambda: house.rounds(run) >= 2, "round 2")
        kill_those_that_run(house, "flwr-serverapp")
        until(lambda: house.rounds(run) >= 3, "round 3")
        kill_those_that_run(house, "flower_superlink")
        until(lambda: house.rounds(run) >= 4, "round 4")
        driver.send_signal(signal.SIGKILL)
        driver.wait(20)
    finally:
        driver.kill()
    code, said = house.run("federate", "recipe.yaml", "--superlink", "fed")
    assert code == 0, said
    assert f"Going on with {run}" in said.replace("\n", "")
    ours, theirs = house.weights(run), house.weights(undisturbed)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].equal(theirs[name]), name


def test_a_site_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(house: House, undisturbed: Path) -> None:
    if house.disk is None:
        pytest.skip("no small disk can be mounted here")
    filler, audit = house.disk / "filler", ("site", "audit", "--config", f"fed/sites/{SMALL}/site.yaml")
    last, driver = house.latest(), house.federate("--new")
    try:
        run = until(lambda: house.latest() if house.latest() != last else None, "the run")
        until(lambda: house.rounds(run) >= 1, "round 1")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        told = until(lambda: re.search(rf"{SMALL}: lost, the site.* disk.*", house.told()), "the server's word of it")[0]
        until(lambda: "the disk is full (0.0 MiB of 6.0 MiB are free)" in house.log(SMALL), "the owner's word of it")
        assert house.run(*audit)[0] == 0
        filler.unlink()
        assert driver.wait(120) == 0, house.told()
    finally:
        driver.kill()
    assert str(house.disk) not in told
    code, said = house.run(*audit)
    assert code == 0, said
    ours, theirs = house.weights(run), house.weights(undisturbed)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def kill_those_that_run(house: House, *words: str) -> None:
    """SIGKILL to the processes of this federation whose command has one of these words."""
    known = json.loads((house.folder / "fed" / "state" / "up.json").read_text(encoding="utf-8"))

    def found() -> list[psutil.Process]:
        mine = []
        for child in psutil.Process(known["pid"]).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                mine += [child] if any(word in " ".join(child.cmdline()) for word in words) else []
        return mine

    for process in until(found, f"a process with one of {words} in its command", 20):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
