"""What training fewer parameters costs: seconds to the final metric and milliseconds per update, beside full fine-tuning.

A linear probe should be at least 10 times faster than full fine-tuning over the same epochs, and gradual unfreezing no slower
per update. The ways take turns in one process.

python tests/benchmarks/bench_adaptation.py [--examples 128] [--epochs 10] [--repeats 3] [--threads 2]
On a busy machine, where seconds say little, ``--threads 1`` and the ratios of CPU seconds still do
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_images import vit
from support.data import pictures
from support.fits import prepare_in_memory, recipe_for
from tunesmith.training.fit import FitContext, fit

HELD_OUT = 32
"""Examples on which the metric is measured, once an epoch, in every way alike."""

WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "linear-probe": {"adaptation": "linear-probe"},
    "unfreeze": {"unfreeze": {"every_epochs": 1}},
    "bitfit": {"adaptation": "bitfit"},
    "lora": {"adaptation": "lora"},
}


def run(folder: Path, base: Path, rows: list[dict[str, Any]], epochs: int, settings: dict[str, Any]) -> dict[str, float]:
    """Seconds of one fit from the base to the end, milliseconds per update, and the accuracy that came of it."""
    recipe = recipe_for(
        "image-classification",
        base,
        folder,
        per_device_train_batch_size=16,
        num_train_epochs=epochs,
        learning_rate=1e-3,
        logging_steps=1000,
        metric_for_best_model="accuracy",
        **settings,
    )
    spec, data = prepare_in_memory(recipe, rows, held_out=HELD_OUT)
    gc.collect()
    begun, worked = time.perf_counter(), time.process_time()
    result = fit(spec, data, FitContext())
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    return {
        "seconds": seconds,
        "cpu_seconds": worked,
        "ms_per_update": 1000 * len(data.train) * epochs / result.examples_per_second / result.place.step,
        "accuracy": next(event["accuracy"] for event in reversed(result.history) if event["kind"] == "eval"),
    }


def main() -> None:
    """Time all ways in turn, and print a table and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        base = vit(Path(folder, "base"))
        rows = pictures(options.examples + HELD_OUT, side=64)
        for _ in range(options.repeats):
            for name, settings in WAYS.items():
                found[name].append(run(Path(folder, "work"), base, rows, options.epochs, settings))
                print(f"  {name:12s} {found[name][-1]['seconds']:6.1f} s", flush=True)
    middle = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in found.items()}
    print(f"\n{'':14s}{'seconds':>9s}{'CPU':>9s}{'ms/update':>11s}{'accuracy':>10s}")
    for name, values in middle.items():
        print(
            f"{name:14s}{values['seconds']:9.1f}{values['cpu_seconds']:9.1f}{values['ms_per_update']:11.1f}{values['accuracy']:10.3f}"
        )
    faster = [a["seconds"] / b["seconds"] for a, b in zip(found["full"], found["linear-probe"], strict=True)]
    slower = [a["ms_per_update"] / b["ms_per_update"] for a, b in zip(found["unfreeze"], found["full"], strict=True)]
    ratios = {
        "probe_times_faster": round(statistics.median(faster), 2),
        **{f"{name}_cpu_of_full": round(middle[name]["cpu_seconds"] / middle["full"]["cpu_seconds"], 3) for name in WAYS},
        "unfreeze_ms_per_update_of_full": round(statistics.median(slower), 3),
    }
    print(json.dumps({"ways": middle, **ratios}))


if __name__ == "__main__":
    main()
