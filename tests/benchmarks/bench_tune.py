"""What a search costs and brings, in ratios of one run.

``overhead``: seconds of a trial beside its fit, and trials an hour beside the plain pattern, a ``Tuner`` over a function that
makes a new ``TorchTrainer`` for each trial. ``asha``: the digits' random search in full and with ASHA, on the same values, over
seeds; ASHA is to reach the full search's best validation loss, within its interval, in at most 40 % of its updates.
``samplers``: TPE and the Gaussian process against random search over seeds, at equal numbers of trials, on texts whose recipe
has a bad learning rate. ``winner``: a search's winner against the untouched recipe of ``tunesmith init``, on held-out texts.

    python tests/benchmarks/bench_tune.py [overhead asha samplers winner] [--seeds 5] [--trials 12]
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.data import texts
from support.models import tiny_bert
from tunesmith.cluster.connect import connect
from tunesmith.evaluation.predictor import Predictor
from tunesmith.evaluation.statistics import Estimate, bootstrap
from tunesmith.recipe import Recipe
from tunesmith.recipe.searched import trial_recipe
from tunesmith.recipe.template import template
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.training.progress import Progress
from tunesmith.tuning.checkpoints import best_of
from tunesmith.tuning.ground import Ground
from tunesmith.tuning.search import Search
from tunesmith.tuning.trials import Trial
from tunesmith.verbs import console
from tunesmith.verbs.searching import find_room, run_trials
from tunesmith.verbs.train import train
from tunesmith.verbs.tune import tune

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "recipe.yaml"
ENOUGH = 0.4
"""Share of the full search's updates within which ASHA is to reach its best value."""

RATE = {"training.learning_rate": {"loguniform": [1e-6, 1e-1]}, "training.weight_decay": {"loguniform": [1e-4, 1.0]}}


def reviews(folder: Path, rows: int = 600, held_out: int = 0) -> Path:
    """A folder with texts, no two of them the same, and a tiny BERT to begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_bert(folder / "base", dropout=0.1)
    different = list({row["text"]: row for row in texts(2 * (rows + held_out), longest=12)}.values())
    assert len(different) >= rows + held_out
    for name, part in (("train.csv", different[:rows]), ("test.csv", different[rows : rows + held_out])):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label", "id"])
            writer.writeheader()
            writer.writerows(part)
    return folder


def text_recipe(folder: Path, training: dict[str, Any], **search: Any) -> Recipe:
    values = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "train.csv", "clean": {"near_duplicates": "off"}},
        "training": {"output_dir": str(folder / "runs"), "num_train_epochs": 3, "per_device_train_batch_size": 16, **training},
        "search": {"space": RATE, "algorithm": "random", "scheduler": "none", **search},
    }
    return Recipe.from_dict(values, base_dir=folder)


def searched(recipe: Recipe) -> tuple[Search, float]:
    """The search of a recipe, run to its end, and its seconds; nothing is kept of the winner."""
    recipe = recipe.resolved()
    with Progress(console.err()) as progress:
        ground = Ground.prepare(recipe, load_task(recipe.task), progress)
    run = Run.create(recipe, ["bench"])
    begun = time.perf_counter()
    with run.lock():
        search = run_trials(recipe, run, ground, find_room(recipe, ground.recipe))
    return search, time.perf_counter() - begun


def overhead(folder: Path, trials: int, _seeds: int) -> None:
    recipe = text_recipe(reviews(folder / "overhead"), {}, num_samples=trials)
    search, _ = searched(recipe)
    ended = search.trials[2:]  # the first two start the two processes
    beside = [trial.seconds - trial.fit_seconds for trial in ended]
    first, last = search.trials[2], search.trials[-1]
    lines = {line["number"]: line["at"] for line in search.ledger.lines() if line.get("status") == "done"}
    ours = 3600 * (last.number - first.number) / (lines[last.number] - lines[first.number])
    plain = plain_trials_an_hour(recipe, 3)
    fits = [trial.fit_seconds for trial in ended]
    print(f"| a trial beside its fit, median | {np.median(beside):.2f} s (fit {np.median(fits):.2f} s) |")
    print(f"| trials an hour, two at a time | {ours:,.0f} |")
    print(f"| the plain pattern: a new TorchTrainer for each trial | {plain:,.0f} |")
    print(f"| ratio | {ours / plain:.1f} |")


def plain_trials_an_hour(recipe: Recipe, trials: int) -> float:
    """The pattern of Ray's documentation: Tune starts a function, which starts Ray Train with one worker, which fits."""
    from ray import tune as ray_tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ground = Ground(recipe.resolved(), load_task(recipe.task))
    prepared, _ = ground.data(ground.recipe)
    place = tempfile.mkdtemp(prefix="tunesmith-plain-")

    def loop(config: dict[str, Any]) -> None:
        import ray.train

        from tunesmith.data import PreparedData
        from tunesmith.training.fit import FitContext, fit
        from tunesmith.training.parts import open_parts

        told = config["recipe"].with_values({"training.learning_rate": config["rate"]}).resolved()
        parts = open_parts(told, load_task(told.task), PreparedData.open(config["data"]))
        fit(*parts, FitContext(event=lambda event: ray.train.report(dict(event)) if event["kind"] == "eval" else None))

    def trial(config: dict[str, Any]) -> None:
        told = {"recipe": ground.recipe, "data": prepared.path, "rate": config["rate"]}
        storage = RunConfig(storage_path=f"{place}/{config['rate']}")
        TorchTrainer(loop, train_loop_config=told, scaling_config=ScalingConfig(num_workers=1), run_config=storage).fit()

    begun = time.perf_counter()
    ray_tune.Tuner(
        ray_tune.with_resources(trial, ray_tune.PlacementGroupFactory([{"memory": 1e6}])),
        param_space={"rate": ray_tune.grid_search([10.0**-n for n in range(3, 3 + trials)])},
        tune_config=ray_tune.TuneConfig(max_concurrent_trials=2),
        run_config=ray_tune.RunConfig(storage_path=place, verbose=0),
    ).fit()
    return 3600 * trials / (time.perf_counter() - begun)


def asha(folder: Path, trials: int, seeds: int) -> None:
    data = folder / "digits"
    subprocess.run([sys.executable, DIGITS.with_name("make_data.py"), data], check=True, capture_output=True)
    given = [f"data.{split}={data / split}" for split in ("train", "test")] + [f"evaluation.retention.data={data / 'clean'}"]
    given += [f"training.output_dir={folder / 'runs'}", "search.algorithm=random", f"search.num_samples={trials}"]
    given += ["search.start_with_recipe=false"]  # it is never stopped, and is good: the comparison would be too easy
    for seed in range(seeds):
        found: dict[str, dict[str, Estimate]] = {}
        steps: dict[str, int] = {}
        for scheduler in ("none", "asha"):
            recipe = Recipe.load(DIGITS, [*given, f"search.scheduler={scheduler}", f"search.seed={seed}"])
            search, seconds = searched(recipe)
            best = max(search.candidates(), key=lambda trial: (trial.score or -9e9, -trial.number))
            found[scheduler], steps[scheduler] = judged(recipe, search, best), sum(trial.done_steps for trial in search.trials)
            shown = ", ".join(
                f"{name} {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for name, one in found[scheduler].items()
            )
            print(
                f"| seed {seed} | {scheduler} | {steps[scheduler]:,} updates | trial {best.number}: {shown} | {seconds:.0f} s |"
            )
        share, full = steps["asha"] / steps["none"], found["none"]["log_loss"]
        reached = found["asha"]["log_loss"].value <= full.high
        met = "met" if reached and share <= ENOUGH else "missed"
        print(
            f"| seed {seed} | {share:.0%} of the updates | {'within' if reached else 'beyond'} the interval | {met} |",
            flush=True,
        )


def judged(recipe: Recipe, search: Search, trial: Trial) -> dict[str, Estimate]:
    """The loss and the accuracy of a trial's best checkpoint on the validation split, with their intervals."""
    kept = best_of(search.run, trial)
    assert kept is not None
    task = load_task(recipe.task)
    prepared, _ = Ground(recipe.resolved(), task).data(trial_recipe(recipe.resolved(), search.space, trial.values))
    predictor, split = Predictor.load(Path(kept[0]) / "model"), prepared.splits["validation"]
    examples = list(split.examples(range(len(split))))
    answers = predictor.predict(examples)
    records = [task.score(answer, example, prepared.state) for answer, example in zip(answers, examples, strict=True)]
    table = pa.Table.from_pylist(records)
    spread = bootstrap(lambda weights: task.aggregate(table, prepared.state, weights), len(split))
    return {name: spread.estimate(name) for name in ("log_loss", "accuracy")}


def samplers(folder: Path, trials: int, seeds: int) -> None:
    place = reviews(folder / "samplers")
    best: dict[str, list[float]] = {}
    for algorithm in ("random", "tpe", "gp"):
        for seed in range(seeds):
            settings = {"algorithm": algorithm, "seed": seed, "num_samples": trials, "metric": "loss"}
            search, _ = searched(text_recipe(place, {"learning_rate": 1e-6}, **settings))
            best.setdefault(algorithm, []).append(min(-(trial.score or 0.0) for trial in search.candidates()))
    for algorithm, values in best.items():
        shown = ", ".join(f"{value:.4f}" for value in values)
        more = ""
        if algorithm != "random":
            more = f"p = {stats.ttest_rel(values, best['random'], alternative='less').pvalue:.3f} (paired t, one-sided)"
        print(f"| {algorithm} | median {np.median(values):.4f} | {shown} | {more} |")


def winner(folder: Path, trials: int, seeds: int) -> None:
    place = reviews(folder / "winner", rows=800, held_out=4000)
    (place / "init.yaml").write_text(template("text-classification", data="train.csv", model="./base"))
    space = {**RATE, "training.lr_scheduler_type": {"choice": ["linear", "cosine"]}}
    differences = []
    for seed in range(seeds):
        given = ["data.test=" + str(place / "test.csv"), "data.clean.near_duplicates=off", f"training.seed={seed}"]
        given += [f"training.output_dir={place / 'runs'}"]
        plain = train(str(place / "init.yaml"), given)
        wanted = {"space": space, "num_samples": trials, "seed": seed}
        best = tune(str(place / "init.yaml"), [*given, f"search={json.dumps(wanted)}"])
        accuracies = plain.metrics["accuracy"], best.metrics["accuracy"]
        differences.append((accuracies[1] or 0.0) - (accuracies[0] or 0.0))
        print(f"| seed {seed} | {accuracies[0]:.4f} | {accuracies[1]:.4f} | {differences[-1]:+.4f} |", flush=True)
    p = stats.ttest_1samp(differences, 0, alternative="greater").pvalue
    print(f"| mean difference {np.mean(differences):+.4f} | p = {p:.2g} (paired t over seeds, one-sided) |")


PARTS: dict[str, Callable[[Path, int, int], None]] = {
    "overhead": overhead,
    "asha": asha,
    "samplers": samplers,
    "winner": winner,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect(None, log_file=f"{folder}/ray.log"):
        for part in given.parts:
            print(f"\n{part}, {given.trials} trials", flush=True)
            PARTS[part](Path(folder), given.trials, given.seeds)


if __name__ == "__main__":
    main()
