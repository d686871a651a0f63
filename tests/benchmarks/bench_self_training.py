"""Self-training on the digits of the demo: five labelled scans of each digit, the other training rows without their labels.

Each seed draws other labelled rows and trains with another order: the teacher on the labelled rows, the student on those and on
what the teacher is sure of, both for the same number of updates. Runs the whole of ``tunesmith train`` but Ray.

python tests/benchmarks/bench_self_training.py [--seeds 5] [--per-class 5] [--threshold 0.9] [KEY=VALUE …]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.in_process import without_ray
from tunesmith import storage
from tunesmith.evaluation.repeats import over_seeds, paired
from tunesmith.recipe import Recipe
from tunesmith.training.self_training import RECORD
from tunesmith.verbs.train import train

DIGITS = Path(__file__).parents[2] / "examples/digits"


def recipe(data: Path, runs: str, per_class: int, seed: int, threshold: float) -> Recipe:
    """The demo's recipe for few labels."""
    values: dict[str, Any] = {
        "name": "digits",
        "task": "image-classification",
        "model": {"model_name_or_path": str(DIGITS / "base")},
        "data": {
            "train": str(data / "train"),
            "test": str(data / "test"),
            "few_shot": {"per_class": per_class, "seed": seed},
            "unlabelled": {"data": str(data / "train"), "threshold": threshold},
        },
        "training": {
            "output_dir": runs,
            "seed": seed,
            "max_steps": 200,
            "eval_strategy": "steps",
            "eval_steps": 25,
            "per_device_train_batch_size": 32,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.1,
            "weight_decay": 0.01,
            "metric_for_best_model": "loss",
        },
    }
    return Recipe.from_dict(values)


def main() -> None:
    """Print a line for each seed, and the means with their intervals as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"teacher": [], "student": [], "kept": []}
    with tempfile.TemporaryDirectory() as runs, pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        data = Path(runs, "data")
        subprocess.run([sys.executable, DIGITS / "make_data.py", data], check=True, stdout=subprocess.DEVNULL)
        for seed in range(options.seeds):
            one = recipe(data, runs, options.per_class, seed, options.threshold)
            run = train(one.override(*options.overrides))
            record = storage.read_json(run.file(RECORD))
            test = record.get("test")
            values = {
                name: test[name]["accuracy"]["value"] if test else run.metrics["accuracy"] for name in ("teacher", "student")
            }
            values["kept"] = run.metrics["accuracy"]
            for name, value in values.items():
                found[name].append(float(value))
            right = record["truth"]["taken"]["value"] if record["taken"] else float("nan")
            print(
                f"seed {seed}: {record['taken']} of {record['rows']} taken, {right:.3f} right; "
                f"teacher {values['teacher']:.3f}, "
                f"student {values['student']:.3f}, kept {record['kept']}",
                flush=True,
            )
    means = {name: over_seeds(values) for name, values in found.items()}
    gains = {name: paired(found[name], found["teacher"]) for name in ("student", "kept")}
    shown = {
        **{name: [round(x, 4) for x in (one.value, one.low, one.high)] for name, one in means.items()},
        **{f"{name} - teacher": [round(x, 4) for x in (one.value, one.low, one.high)] for name, one in gains.items()},
    }
    print(json.dumps({"accuracy": shown, "seeds": options.seeds}))


if __name__ == "__main__":
    main()
