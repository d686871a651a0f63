"""Examples per second of training with augmentation beside none, in turn, in one process; the model is that of bench_images.

python tests/benchmarks/bench_augment.py [--examples 384] [--repeats 4]
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

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_images import BATCH, SIDE, vit
from support.data import pictures, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_tokenizer
from tunesmith.recipe import Recipe
from tunesmith.training.augmentation import batch_maker
from tunesmith.training.fit import FitContext, FitData, fit

BAR = 0.9
"""Of the throughput without augmentation."""

NAMES = ("rotation", "hflip", "crop", "color_jitter", "noise")
ALL: list[dict[str, Any]] = [{"name": name} for name in NAMES]
MASKED = {"vocab_size": 50_000, "hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "initializer_range": 0.1}
"""A masked language model of the size of DistilRoBERTa, with random weights: what it proposes does not matter to its cost."""
TEXT = [{"name": name, "p": 1} for name in ("word_dropout", "word_swap", "typos")]


def masked_lm(folder: Path) -> str:
    """A model of :data:`MASKED`, with a word-level tokenizer."""
    from transformers import BertConfig, BertForMaskedLM

    BertForMaskedLM(BertConfig(**MASKED, intermediate_size=3072)).save_pretrained(folder)
    tiny_tokenizer(folder)
    return str(folder)


def speed(recipe: Recipe, rows: list[dict[str, Any]]) -> float:
    """Examples/s of the loop."""
    spec, data = prepare_in_memory(recipe, rows)
    gc.collect()
    gc.freeze()
    return fit(spec, FitData(data.train), FitContext()).examples_per_second


def cost(recipe: Recipe, rows: list[dict[str, Any]], batch: int) -> float:
    """Milliseconds of one core that the batch of an example costs the loader."""
    spec, data = prepare_in_memory(recipe, rows)
    make, taken = batch_maker(spec, data.train), []
    for epoch in range(4):
        begun = time.process_time()
        for start in range(0, len(data.train) - batch + 1, batch):
            make(epoch, list(range(start, start + batch)))
        taken.append((time.process_time() - begun) / (len(data.train) // batch * batch))
    return 1000 * min(taken)


def main() -> None:
    """Print a table of costs, the throughputs in turn, and the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    begun = time.perf_counter()
    import kornia  # noqa: F401  # once for each worker that augments

    imported = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        images = recipe_for(
            "image-classification",
            vit(place / "vit"),
            place / "images",
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            logging_steps=1000,
            eval_strategy="no",
            load_best_model_at_end=False,
        )
        rows = pictures(options.examples + 16, side=SIDE)
        torch.set_num_threads(1)
        costs = {
            "none": cost(images, rows, BATCH),
            **{one["name"]: cost(images.override(f"data.augment={[one]}"), rows, BATCH) for one in ALL},
            "all five": cost(images.override(f"data.augment={ALL}"), rows, BATCH),
            "randaugment": cost(images.override("data.augment=[{name: randaugment}]"), rows, BATCH),
            "mixup": cost(images.override("data.augment=[{name: mixup}]"), rows, BATCH),
        }
        words = recipe_for("text-classification", tiny_bert(place / "bert"), place / "texts")
        sentences = texts(options.examples + 16, longest=60)
        for name, operations in (("texts, none", []), ("texts, all three", TEXT)):
            costs[name] = cost(words.override(f"data.augment={operations}"), sentences, BATCH)
        proposed = [{"name": "mlm", "p": 1, "model_name_or_path": masked_lm(place / "masked")}]
        costs["texts, mlm"] = cost(words.override(f"data.augment={proposed}"), sentences, BATCH)
        print(f"importing kornia: {imported:.1f} s")
        print(f"{'ms of one core per example':26s} (images of {SIDE} × {SIDE}, texts of 2 to 60 words)")
        for name, value in costs.items():
            print(f"  {name:20s} {value:7.3f}")
        torch.set_num_threads(2)
        speeds: dict[str, list[float]] = {"none": [], "augmented": []}
        ways = {"none": images, "augmented": images.override(f"data.augment={ALL}")}
        for turn in range(options.repeats):
            for name in list(ways)[:: 1 if turn % 2 else -1]:
                speeds[name].append(speed(ways[name], rows))
                print(f"  {name:12s} {speeds[name][-1]:6.1f} examples/s", flush=True)
    ratio = float(np.median([a / b for a, b in zip(speeds["augmented"], speeds["none"], strict=True)]))
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    print(
        json.dumps(
            {
                "examples_per_second": medians,
                "ratio": round(ratio, 3),
                "bar": BAR,
                "passed": ratio >= BAR,
                "ms_per_example": {name: round(value, 3) for name, value in costs.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
