"""Macro F1 on rare classes: each remedy beside none, on handwritten digits with a long tail of 1:50.

The protocol of Cui et al. (2019): training counts fall from class to class by a constant factor (100, 65, … 2), the test split
is even. Which digit is rare, which images are drawn, the head and the order of examples change with the seed; within a seed all
remedies see the same images. All have the same model, epochs and learning rate. Differences are paired by seed; intervals are
Student's, 95 %.

    python tests/benchmarks/bench_imbalance.py [--seeds 5] [--epochs 60] [--ways none "sampling: balanced"] [--keep FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_vit
from tunesmith.training.fit import FitContext, FitData, fit, validate

MOST, RATIO, TEST = 100, 50, 60
"""Training images of the commonest class, how many times the rarest has fewer, test images of each class."""

BAR = 0.05
"""What the best remedy must bring."""

WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "class_weights: inverse": {"class_weights": "inverse"},
    "class_weights: effective": {"class_weights": "effective"},
    "sampling: balanced": {"sampling": "balanced"},
    "loss: focal": {"loss": "focal"},
}


def digits(seed: int) -> tuple[list[dict[str, Any]], int]:
    """Rows with a long tail, the even test rows last, and how many of those there are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    rng = np.random.default_rng(seed)
    counts = np.round(MOST * RATIO ** (-np.arange(10) / 9)).astype(int)
    train, test = [], []
    for digit, count in zip(rng.permutation(10), counts, strict=True):
        mine = rng.permutation(np.flatnonzero(found.target == digit))
        train += mine[TEST : TEST + count].tolist()
        test += mine[:TEST].tolist()
    pixels = (found.images * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    rows = [{"image": np.stack([pixels[i]] * 3, -1), "label": str(found.target[i])} for i in (*train, *test)]
    return rows, len(test)


def score(folder: Path, base: Path, rows: list[dict[str, Any]], held_out: int, seed: int, **training: Any) -> dict[str, float]:
    """Macro F1, the mean recall of the five rarest classes, and the loss on the training images, after training as told."""
    recipe = recipe_for(
        "image-classification",
        base,
        folder,
        **{"seed": seed, "eval_strategy": "no", "load_best_model_at_end": False, "logging_steps": 10_000, **training},
    )
    spec, data = prepare_in_memory(recipe, rows, held_out)
    result = fit(spec, FitData(data.train), FitContext())
    assert data.validation is not None
    found = validate(spec, result.model, data.validation, FitContext())
    state = spec.preprocessing.state
    rare = [state["labels"][i] for i in np.argsort(state["label_counts"])[:5]]
    fitted = validate(spec, result.model, data.train, FitContext())["loss"]
    return {"f1": found["f1_macro"], "rare": float(np.mean([found[f"recall/{label}"] for label in rare])), "fitted": fitted}


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % interval (Student's t)."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, float("nan"), float("nan")
    reach = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - reach, mean + reach


def table(found: dict[str, list[dict[str, float]]]) -> dict[str, tuple[float, float, float]]:
    """Print the remedies beside none; returns what each brings, with its interval."""
    print("\n| remedy | macro F1 | 95 % | over none | 95 % | recall of the 5 rarest | training loss |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    gains: dict[str, tuple[float, float, float]] = {}
    for name, runs in found.items():
        mean, low, high = interval([one["f1"] for one in runs])
        gain = interval([one["f1"] - none["f1"] for one, none in zip(runs, found.get("none", runs), strict=True)])
        beside = f"{gain[0]:+.3f} | {gain[1]:+.3f} to {gain[2]:+.3f}" if name != "none" else "– | –"
        rare = np.mean([one["rare"] for one in runs])
        fitted = np.mean([one["fitted"] for one in runs])
        print(f"| {name} | {mean:.3f} | {low:.3f} to {high:.3f} | {beside} | {rare:.3f} | {fitted:.4f} |")
        gains[name] = gain
    return gains


def main() -> int:
    """Train every way on every seed; print a table, and JSON. Exits 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep scores here: a benchmark that was cut off goes on")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    settings = {
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "per_device_train_batch_size": 32,
        "warmup_ratio": 0.1,
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.ways}
    kept = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        base = tiny_vit(Path(folder, "base"), spread=0.1)
        for seed in range(options.seeds):
            rows, held_out = digits(seed)
            for name in options.ways:
                key = json.dumps([name, seed, settings])
                if key not in kept:
                    kept[key] = score(Path(folder, "work"), base, rows, held_out, seed, **settings, **WAYS[name])
                    if options.keep:
                        options.keep.write_text(json.dumps(kept))
                last = kept[key]
                found[name].append(last)
                print(f"  seed {seed}  {name:26s} macro F1 {last['f1']:.3f}  training loss {last['fitted']:.4f}", flush=True)
    gains = table(found)
    best = max((name for name in gains if name != "none"), key=lambda name: gains[name][0], default="none")
    passed = gains[best][0] >= BAR
    print(f"\nbest: {best}, {100 * gains[best][0]:+.1f} points over none; the bar is {100 * BAR:.0f}")
    seconds = round(time.perf_counter() - begun, 1)
    print(json.dumps({"scores": found, "gain_over_none": gains, "best": best, "passed": passed, "seconds": seconds}))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
