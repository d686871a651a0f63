"""What a round costs beside its training: a deployed federation of ours, and Flower's default deployment of the same app.

The digits of examples/hospitals at two sites on this machine. Ours: `tunesmith federation up`, two `tunesmith site join`, with
mutual TLS and a database. Flower's: `flower-superlink --insecure`, two `flower-supernode` and `flwr run`, all else as it comes:
no TLS, nothing on disk, a process for each message. Both run the same server app and the same client app over the same rows,
each site with one thread, and must come to the same model. Flower's gains by our server app, which looks for replies more often
than its own does.

Overhead is a round's seconds without those of the slowest site's answer, which the reply says. With Flower's the answer itself
opens model and data anew, in every process; that counts as training. The first round is not counted.

    python tests/benchmarks/bench_federated_deployed.py [--rounds 6]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import torch

from tunesmith.cluster.ports import LOOPBACK, free_port
from tunesmith_federated import flower
from tunesmith_federated.deployed import MOST_BYTES
from tunesmith_federated.deployment.jobs import CLIENT_APP, SERVER_APP
from tunesmith_federated.deployment.site_config import VARIABLE
from tunesmith_federated.deployment.wire import app_file
from tunesmith_federated.record import FOLDER
from tunesmith_federated.server_app import EVENTS, OUTCOME, Job
from tunesmith_federated.server_state import Book

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
SITES = ("berlin", "lyon")
BAR = 0.25
"""At most so much of Flower's overhead."""
LIMIT = 300.0
"""Seconds that one deployment's rounds may take."""
START_WITHIN = 90.0
END_WITHIN = 20.0


def environment(**extra: str) -> dict[str, str]:
    """For every process: Flower's commands are found, and Python keeps what it has compiled, which its cold starts live on."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **flower.QUIET, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}", **extra}


class Started:
    """Processes with logs in a folder; as a context it leaves none of them, and none that they have begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._all: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, *command: str, **extra: str) -> subprocess.Popen[bytes]:
        """Start one."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment(**extra), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._all.append((name, process))
        return process

    def log(self, name: str) -> str:
        """What it has written."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def until(self, ready: Callable[[], Any], what: str, within: float) -> None:
        """Wait for it; where it does not come, or a process has failed, the logs say why."""
        deadline = time.monotonic() + within
        while not ready():
            failed = [name for name, process in self._all if process.poll()]
            if failed or time.monotonic() > deadline:
                said = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name, _ in self._all)
                raise SystemExit(f"{what} did not come within {within:.0f} s{f', {failed} failed' if failed else ''}\n{said}")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, process in reversed(self._all):
            family = _family(process)
            for one in family[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.terminate()
            _, alive = psutil.wait_procs(family, END_WITHIN)
            for one in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(alive, END_WITHIN)
            process.wait(END_WITHIN)


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A process and all below it, which have sessions of their own with Flower."""
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tunesmith(*arguments: str) -> str:
    """What a command prints. Ends the benchmark where it fails."""
    command = [sys.executable, "-m", "tunesmith.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=LIMIT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def prepare(folder: Path, rounds: int) -> list[str]:
    """The data, a federation's folder with two sites that hold it, a copy of these; the recipe with what is set in it."""
    subprocess.run([sys.executable, ROOT / "examples/digits/make_data.py", folder / "data"], check=True, capture_output=True)
    recipe = [
        str(ROOT / "examples/hospitals/recipe.yaml"),
        f"data.test={folder}/data/test",
        f"training.output_dir={folder}/runs",
        f"training.num_train_epochs={rounds}",
        "training.use_gpu=false",
        "federation.method=fedavg",
        f"federation.min_sites={len(SITES)}",
    ]
    tunesmith("federation", "init", f"{folder}/fed", "--sites", ",".join(SITES), "--port", str(free_port()))
    allowed = re.search(r"[0-9a-f]{40}", tunesmith("site", "fingerprint", *recipe))
    assert allowed is not None
    deal = [ROOT / "examples/hospitals/make_data.py", folder / "fed", allowed[0], folder / "data/train"]
    subprocess.run([sys.executable, *deal], check=True, capture_output=True)
    shutil.copytree(folder / "fed/sites", folder / "flower/sites")
    return recipe


def ours(folder: Path, recipe: list[str]) -> Path:
    """All rounds as a user runs them; the run's folder."""
    tunesmith("federation", "up", f"{folder}/fed", "--detach")
    try:
        with Started(folder / "logs") as started:
            for name in SITES:
                join = ("site", "join", "--config", f"{folder}/fed/sites/{name}/site.yaml")
                started.start(name, sys.executable, "-m", "tunesmith.cli", *join)
            for name in SITES:
                started.until(lambda name=name: "joined" in started.log(name), f"{name} joining", START_WITHIN)
            tunesmith("federate", recipe[0], "--superlink", f"{folder}/fed", *recipe[1:])
    finally:
        tunesmith("federation", "stop", f"{folder}/fed")
    (run,) = (folder / "runs").glob("*-federated-*")
    return run


def theirs(folder: Path, recipe: Path) -> Path:
    """The same rounds on Flower's default deployment; the job's folder."""
    job, app, port = folder / "flower/job", folder / "flower/app", free_port()
    Job("bench", str(recipe), MOST_BYTES, 120.0).write(job)
    app.mkdir()
    (app / "pyproject.toml").write_text(app_file(SERVER_APP, CLIENT_APP), encoding="utf-8")
    home = folder / "flower/home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "{LOOPBACK}:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    with Started(folder / "flower/logs") as started:
        link = ("--insecure", "--host", LOOPBACK, "--port", str(port))
        started.start("superlink", str(SCRIPTS / "flower-superlink"), *link, FLWR_HOME=str(folder / "flower/home-superlink"))
        started.until(lambda: _answers(f"http://{LOOPBACK}:{port}/health"), "SuperLink", START_WITHIN)
        for name in SITES:
            node = ("--insecure", "--superlink", f"{LOOPBACK}:{port}", "--host", LOOPBACK, "--port", str(free_port()))
            own = {VARIABLE: str(folder / f"flower/sites/{name}/site.yaml"), "FLWR_HOME": str(folder / f"flower/home-{name}")}
            started.start(name, str(SCRIPTS / "flower-supernode"), *node, **own, OMP_NUM_THREADS="1")
        submit = ("run", str(app), "bench", "--run-config", f"job='{job}'")
        started.start("flwr", str(SCRIPTS / "flwr"), *submit, FLWR_HOME=str(home))
        started.until((job / OUTCOME).exists, "the rounds' end", LIMIT)
    return job


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def rounds_of(folder: Path) -> Iterator[dict[str, float]]:
    """Seconds of each round but the first, of its slowest site's answer, and of what is left."""
    slowest: dict[int, float] = {}
    for row in Book(folder).rows():
        assert row["status"] == "replied", row
        slowest[row["round"]] = max(slowest.get(row["round"], 0.0), row["seconds"])
    for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        if told["kind"] == "round" and told["round"] > 1:
            fit = slowest[told["round"]]
            yield {"round": told["seconds"], "fit": fit, "overhead": told["seconds"] - fit}


def check_same(one: Path, other: Path) -> None:
    """That the models after the last round are equal, to the last bit: what was timed is the same work."""
    first, second = (Book(folder).tensors()[0] for folder in (one, other))
    unequal = [name for name in first | second if not torch.equal(first[name], second[name])]
    if unequal:
        raise SystemExit(f"the two federations have come to different models: {', '.join(unequal[:3])} …")


def row(name: str, found: Mapping[str, list[float]]) -> str:
    """A line of the table."""
    low, high = min(found["overhead"]), max(found["overhead"])
    middle = {key: statistics.median(values) for key, values in found.items()}
    return f"| {name} | {middle['round']:.2f} | {middle['fit']:.2f} | {middle['overhead']:.2f} ({low:.2f} to {high:.2f}) |"


def main() -> int:
    """Measure one after the other, print the table and JSON. Exits 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="the first is not counted")
    rounds = parser.parse_args().rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if rounds < 2:
        parser.error("--rounds: the first is not counted, so that there must be two at least")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe = prepare(folder, rounds)
        run = ours(folder, recipe)
        job = theirs(folder, run / "recipe.yaml")
        check_same(run / FOLDER, job)
        sides = {"ours": list(rounds_of(run / FOLDER)), "flower": list(rounds_of(job))}
    found = {name: {key: [one[key] for one in side] for key in side[0]} for name, side in sides.items()}
    middle = {name: {key: statistics.median(values) for key, values in side.items()} for name, side in found.items()}
    ratio = middle["ours"]["overhead"] / middle["flower"]["overhead"]
    print("| | s a round | of these the slowest site's | overhead |\n|---|---|---|---|")
    print(row("`federation up`, `site join`, mutual TLS", found["ours"]))
    print(row("Flower's default deployment", found["flower"]))
    told = {name: {key: round(value, 3) for key, value in side.items()} for name, side in middle.items()}
    print(json.dumps({"ratio": round(ratio, 3), "bar": BAR, "missed": ratio > BAR, "rounds": rounds - 1, **told}))
    return 1 if ratio > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
