"""Data-parallel efficiency: two ranks of one thread each, beside two independent runs of one thread each at the same time.

Beside it stands what this machine gives at all: two processes of plain matrix products together, over one of them.

    python tests/benchmarks/bench_scaling.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_text import bert, mixed_texts
from support import fits
from support.data import pictures
from support.fits import on_ranks, prepare_in_memory, recipe_for
from tunesmith.recipe import Recipe
from tunesmith.training.fit import FitContext, FitData, fit

ROOT = Path(__file__).parents[2]


def trained(context: FitContext, recipe: Recipe, rows: list[dict[str, Any]], together: bool) -> float:
    """Examples/s of this rank, in the group or for itself; both start and stop side by side."""
    spec, data = prepare_in_memory(recipe, rows)
    if together:
        return fit(spec, FitData(data.train), context).examples_per_second
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    import os

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name)
    return fit(spec, FitData(data.train), FitContext()).examples_per_second


def products(context: FitContext, seconds: float) -> float:
    """Matrix products per second of one thread."""
    a = torch.randn(512, 512)
    torch.distributed.barrier()
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        a @ a
        count += 1
    return count / seconds


def meeting(context: FitContext, base: Path, updates: int, meet: bool) -> float:
    """Updates per second of the digits' network on the same batch again and again, by itself or with a barrier after each.

    The barrier carries no gradients: what it costs is the price of meeting at all, which no way of sending them can beat.
    """
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(base).train()
    pixels, labels = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for update in range(updates + 10):
        if update == 10:
            torch.distributed.barrier()
            begun = time.perf_counter()
        torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, labels).backward()
        if meet:
            torch.distributed.barrier()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return updates / (time.perf_counter() - begun)


def main() -> None:
    """Measure both models and the limit, in turn, and print the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    fits.TIMEOUT = 900
    common = {"num_train_epochs": 1, "eval_strategy": "no", "load_best_model_at_end": False, "logging_steps": 1000}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base, digits = bert(folder / "bert"), ROOT / "examples" / "digits" / "base"
        text = recipe_for("text-classification", base, folder / "t", per_device_train_batch_size=16, **common)
        image = recipe_for(
            "image-classification",
            digits,
            folder / "i",
            per_device_train_batch_size=16,
            **common,
        )
        cases = {"text, 6-layer BERT": (text, mixed_texts(384 + 16, 0)), "digits": (image, pictures(2048 + 16, side=32))}
        alone = on_ranks(1, products, 3.0)[0]
        both = sum(on_ranks(2, products, 3.0))
        by_itself = sum(on_ranks(2, meeting, digits, 200, False))
        met = sum(on_ranks(2, meeting, digits, 200, True))
        ratios: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(options.repeats):
            for name, (recipe, rows) in cases.items():
                side_by_side = sum(on_ranks(2, trained, recipe, rows, False))
                together = sum(on_ranks(2, trained, recipe, rows, True))
                ratios[name].append(together / side_by_side)
                print(f"  {name:20s} together {together:7.1f}, side by side {side_by_side:7.1f} examples/s", flush=True)
    print(
        json.dumps(
            {
                "efficiency": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
                "digits_with_a_barrier_after_each_update": round(met / by_itself, 3),
                "two_processes_of_matrix_products_over_one": round(both / alone, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
