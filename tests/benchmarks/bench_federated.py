"""What simulating a federation costs over training alone, and beside Flower's own engine.

The digits of examples/digits on 20 sites, and 1,000 sites of four short texts each. Beside each stand the same ``fit`` calls,
from the same base model in memory, in two bare processes at the same time: no messages, no checks, no server, nobody to wait
for. The first round, in which processes import what they need, is not counted on any side.

    python tests/benchmarks/bench_federated.py [--repeats 1] [--rounds 5] [--only digits many flower flower-cold]
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.data import texts
from support.engines import Case, Engine, run
from support.models import tiny_bert
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

ROOT = Path(__file__).parents[2]
TIMEOUT = 600
"""Seconds that one engine's run may take."""
BARS = {"digits": 1.15, "many": 1.5, "flower": 2.0, "flower-cold": 2.0}
"""At most so many times the bare calls; at least so many times the rounds per second of Flower's engine, with the same sites in
its processes, or with sites that load model and data for each message, as the apps of Flower's tutorials do."""
FEW, MANY = 10, 1000


def digits(folder: Path, rounds: int) -> Recipe:
    """The example's recipe, its rows dealt out evenly to 20 sites."""
    subprocess.run([sys.executable, ROOT / "examples/digits/make_data.py", folder / "data"], check=True, capture_output=True)
    places = [f"data.train={folder}/data/train", f"data.test={folder}/data/test", f"training.output_dir={folder}/runs"]
    passes = [f"training.num_train_epochs={2 * rounds}", "federation.local_epochs=2"]
    dealt = ["federation.sites=20", "federation.partition.by=iid", *passes]
    return Recipe.load(ROOT / "examples/digits/federated.yaml", [*places, *dealt, "training.use_gpu=false"])


def many(folder: Path) -> Recipe:
    """Short texts, four for each of 1,000 sites; two rounds of one update."""
    tiny_bert(folder / "bert")
    with (folder / "texts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(4 * MANY))
    (folder / "recipe.yaml").write_text(
        f"""\
name: many
task: text-classification
model: {{model_name_or_path: bert}}
data: {{train: texts.csv, split: {{validation: 0.0, test: 0.0}}, clean: {{near_duplicates: "off"}}, leakage: "off"}}
training: {{num_train_epochs: 2, eval_strategy: "no", load_best_model_at_end: false, learning_rate: 1.0e-3, use_gpu: false}}
federation: {{sites: {MANY}, holdout: 0.0}}
"""
    )
    return Recipe.load(folder / "recipe.yaml", [f"training.output_dir={folder}/runs"])


def prepared(recipe: Recipe) -> str:
    """Where its prepared data is."""
    return str(prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir).path)


def seconds_a_round(case: Case, engine: Engine) -> float:
    """On that engine, without the first round."""
    run(case, engine, TIMEOUT)
    at = [event["at"] for event in case.events(engine) if event["kind"] == "round"]
    return (at[-1] - at[0]) / (len(at) - 1)


def bare(case: Case, rounds: int) -> float:
    """Seconds a round of the same ``fit`` calls in two processes side by side, without the first round."""
    spawn = multiprocessing.get_context("spawn")
    ready, queue = spawn.Barrier(2), spawn.SimpleQueue()
    processes = [spawn.Process(target=_fits, args=(case.folder, rounds, half, ready, queue)) for half in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode == 0, f"a bare process ended with {process.exitcode}"
    return max(queue.get() for _ in processes) / (rounds - 1)


def _fits(folder: Path, rounds: int, half: int, ready: Any, queue: Any) -> None:
    """Every other site's calls, round by round; the time of all rounds but the first goes into the queue."""
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.checkpoint import Start
    from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
    from tunesmith_federated import asked_recipe
    from tunesmith_federated.holdings import Part
    from tunesmith_federated.methods import make_method
    from tunesmith_federated.models import tensors_of, travelling
    from tunesmith_federated.protocol import Ask
    from tunesmith_federated.work import Job, stretch

    torch.set_num_threads(1)
    case = Case(folder)
    job = Job(asked_recipe.for_sites(case.recipe, list(case.prepared.state["labels"])))
    base = job.base(case.prepared.state)
    model, _ = base.adapted()
    start = tensors_of(model, travelling(model, make_method(job.recipe.federation)))
    spec = FitSpec(job.recipe, job.task, Preprocessing(case.prepared.state, job.processor))
    names = sorted(case.parts.train)[half::2]
    parts = [Part(case.prepared.path, case.parts.train[name], case.parts.holdout[name]) for name in names]
    rows = [part.open(job.recipe, job.task).train for part in parts]
    gc.collect()
    gc.freeze()
    for number in range(1, rounds + 1):
        if number <= 2:
            ready.wait(TIMEOUT)
        if number == 2:
            begun = time.perf_counter()
        for mine in rows:
            ask = Ask("train", "bare", number, rounds, job.text, "")
            place, steps = stretch(spec, len(mine), ask)
            fit(spec, FitData(mine), FitContext(start=Start(tensors=start, place=place), steps=steps, build=base.build))
    queue.put(time.perf_counter() - begun)


def rss(case: Case) -> float:
    """Most MB of the server's process at the end of a round on our engine."""
    return max(event["rss"] for event in case.events("ray")) / 1e6


def main() -> int:
    """Measure in turn, print a line for each pair, and the medians as JSON. Exits 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of the digits")
    parser.add_argument("--only", nargs="*", default=list(BARS), choices=list(BARS))
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {name: [] for name in options.only}
    memory: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipes: dict[str, tuple[Recipe, str]] = {}
        if {"digits", "flower", "flower-cold"} & set(options.only):
            recipe = digits(folder, options.rounds)
            recipes["digits"] = (recipe, prepared(recipe))
        if "many" in options.only:
            recipe = many(folder)
            recipes["many"] = (recipe, prepared(recipe))

        def case(name: str, *overrides: str) -> Case:
            recipe, place = recipes[name]
            return Case.make(folder / f"case-{time.monotonic_ns()}", recipe.override(*overrides, check_paths=False), place)

        for _ in range(options.repeats):
            if "digits" in options.only:
                one = case("digits", "federation.holdout=0")
                alone, ours = bare(one, options.rounds), seconds_a_round(one, "ray")
                ratios["digits"].append(ours / alone)
                print(f"  digits, 20 sites  simulated {ours:.2f}, bare {alone:.2f} s a round", flush=True)
            if "many" in options.only:
                one = case("many")
                alone, ours = bare(one, 2), seconds_a_round(one, "ray")
                ratios["many"].append(ours / alone)
                memory[MANY] = rss(one)
                print(f"  {MANY} sites        simulated {ours:.2f}, bare {alone:.2f} s a round", flush=True)
            if "many" in options.only and not memory.get(FEW):
                few = case("many", f"federation.sites={FEW}")
                run(few, "ray", TIMEOUT)
                memory[FEW] = rss(few)
            flowers: list[Engine] = [engine for engine in ("flower", "flower-cold") if engine in options.only]
            ours = seconds_a_round(case("digits"), "ray") if flowers else 0.0
            for engine in flowers:
                theirs = seconds_a_round(case("digits"), engine)
                ratios[engine].append(theirs / ours)
                print(f"  digits, 20 sites  {engine} {theirs:.2f}, ours {ours:.2f} s a round", flush=True)
    found = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    spread = {name: [round(float(np.min(values)), 3), round(float(np.max(values)), 3)] for name, values in ratios.items()}
    missed = [
        name for name, value in found.items() if (value < BARS[name] if name.startswith("flower") else value > BARS[name])
    ]
    print(json.dumps({"ratios": found, "spread": spread, "bars": BARS, "missed": missed, "server_mb": memory}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
