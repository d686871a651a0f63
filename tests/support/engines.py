"""One simulated federation on either engine, Flower's own or ours, each in a process of its own.

Flower's ends the Ray of the process that it runs in. It numbers its nodes and tells a node's app which it is
(``node_config["partition-id"]``); here that number is the site's place among the sorted names.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith_federated.flower import QUIET, Context, Grid, Message, ServerApp

Engine = Literal["flower", "flower-cold", "ray"]
"""``flower-cold``: each message loads model and data anew, as the apps of Flower's tutorials do."""
CASE = "TUNESMITH_TEST_CASE"
"""Names the folder of the case, in every process of an engine."""
ENGINE = "TUNESMITH_TEST_ENGINE"


@dataclass(frozen=True)
class Case:
    """What is to be run: a recipe over prepared data, dealt out as the recipe says."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, recipe: Any, prepared: str) -> Case:
        """Written down, for other processes."""
        folder.mkdir(parents=True)
        (folder / "case.json").write_text(json.dumps({"recipe": recipe.to_yaml(), "prepared": prepared}))
        return cls(folder)

    @functools.cached_property
    def _told(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "case.json").read_text())
        return found

    @functools.cached_property
    def recipe(self) -> Any:
        from tunesmith.recipe import Recipe
        from tunesmith.recipe.yaml_tree import parse

        return Recipe.from_dict(parse(self._told["recipe"]).values, check_paths=False).resolved()

    @functools.cached_property
    def task(self) -> Any:
        from tunesmith.tasks import load_task

        return load_task(self.recipe.task)

    @functools.cached_property
    def prepared(self) -> Any:
        from tunesmith.data import PreparedData

        return PreparedData.open(self._told["prepared"])

    @functools.cached_property
    def parts(self) -> Any:
        from tunesmith_federated.simulation.parts import dealt

        return dealt(self.recipe, self.task, self.prepared)

    def sites(self, place: Path) -> dict[str, Any]:
        """All of them, in this process; what they keep goes below ``place``."""
        from tunesmith_federated.holdings import Part
        from tunesmith_federated.site import Site

        parts, jobs = self.parts, dict[str, Any]()
        held = {name: Part(self.prepared.path, parts.train[name], parts.holdout[name]) for name in sorted(parts.train)}
        return {name: Site(name, part, place / name, jobs) for name, part in held.items()}

    def serve(self, grid: Grid, engine: str) -> Any:
        """All rounds over this grid; each one's time stands in ``ENGINE/events.jsonl``. Returns the book."""
        from tunesmith_federated.rounds import Federation, Plan

        place = self.folder / engine
        place.mkdir(exist_ok=True)

        def tell(event: Any) -> None:
            if event["kind"] in ("round", "judged"):
                line = {"kind": event["kind"], "at": time.perf_counter(), "rss": _rss(), "round": event.get("round", 0)}
                with (place / "events.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")

        plan = Plan("case", self.recipe, self.task, place / "server", self.prepared.state, wait_s=120)
        return Federation(plan, grid, tell).run()

    def events(self, engine: str) -> list[dict[str, Any]]:
        """What was told on that engine."""
        return [json.loads(line) for line in (self.folder / engine / "events.jsonl").read_text().splitlines()]


def run(case: Case, engine: Engine, timeout: float = 300) -> Any:
    """The case on that engine, in a child process; returns its book. Fails with what the child wrote."""
    from tunesmith_federated.server_state import Book

    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **QUIET, "PYTHONPATH": paths, "FLWR_HOME": str(case.folder / "flwr"), CASE: str(case.folder)}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    log = case.folder / f"{engine}.log"
    with log.open("wb") as written:
        done = subprocess.run(
            [sys.executable, "-c", f"from support.engines import child; child({engine!r})"],
            env={**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-case-alone" * 3},
            stdout=written,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    book = Book(case.folder / engine / "server")
    assert done.returncode == 0, f"{engine}: {log.read_text()}"
    assert book.standing.ended, f"{engine} did not come to its end: {log.read_text()}"
    return book


def child(engine: Engine) -> None:
    """What such a process does."""
    import torch

    torch.set_num_threads(1)
    os.environ[ENGINE] = engine  # its workers inherit it
    (_on_ray if engine == "ray" else _on_flower)(_case())


def _on_ray(case: Case) -> None:
    from tunesmith.cluster.connect import connect
    from tunesmith_federated.simulation.run import simulated

    with connect("local"), simulated(case.recipe, case.prepared, case.parts, case.folder / "ray/sites") as grid:
        case.serve(grid, "ray")


def _on_flower(case: Case) -> None:
    from flwr.simulation import run_simulation

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        case.serve(grid, os.environ[ENGINE])

    cpus = {"num_cpus": case.recipe.federation.num_cpus, "num_gpus": 0.0}
    init: dict[str, Any] = {"num_cpus": 2, "log_to_driver": False}
    client: Any = Sited()  # Flower calls it, no more
    run_simulation(app, client, len(case.parts.train), backend_config={"client_resources": cpus, "init_args": init})


class Sited:
    """Our ClientApp in a process of Flower's engine: it brings this module along, which knows where the sites are."""

    def __call__(self, message: Message, context: Context) -> Message:
        from tunesmith_federated import client_app

        if os.environ[ENGINE] == "flower-cold":
            from tunesmith_federated import holdings

            holdings._opened.clear()
        client_app.find = lambda context: _site(int(context.node_config["partition-id"]))
        return client_app.app(message, context)


@functools.cache
def _case() -> Case:
    return Case(Path(os.environ[CASE]))


def _site(number: int) -> Any:
    """Kept, or made anew for each message where the engine is cold."""
    return list((_fresh() if os.environ[ENGINE] == "flower-cold" else _sites()).values())[number]


@functools.cache
def _sites() -> dict[str, Any]:
    """Of this process, as an actor of ours has them: one thread of PyTorch, and nothing that was imported is garbage."""
    import torch

    torch.set_num_threads(1)
    found = _fresh()
    gc.collect()
    gc.freeze()
    return found


def _fresh() -> dict[str, Any]:
    return _case().sites(_case().folder / os.environ[ENGINE] / "sites")


def _rss() -> int:
    """Bytes of this process in memory."""
    import psutil

    found: int = psutil.Process().memory_info().rss
    return found
