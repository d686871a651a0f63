"""Examples per second on images of one size: the loop beside plain ``transformers.Trainer``, in turn, in one process.

python tests/benchmarks/bench_images.py [--examples 512] [--repeats 5]
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

from support.data import pictures
from support.fits import prepare_in_memory, recipe_for
from tunesmith.training.fit import FitContext, FitData, fit

SIDE, BATCH = 64, 32


def vit(folder: Path) -> Path:
    """A ViT of 6 layers, 192 wide (ViT-Ti's width), for 64 × 64 pixels in patches of 8."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=SIDE, patch_size=8
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def ours(folder: Path, base: Path, rows: list[dict[str, Any]]) -> float:
    """Examples/s of the loop."""
    recipe = recipe_for(
        "image-classification",
        base,
        folder,
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        logging_steps=1000,
        eval_strategy="no",
        load_best_model_at_end=False,
    )
    spec, data = prepare_in_memory(recipe, rows)
    gc.collect()
    gc.freeze()
    return fit(spec, FitData(data.train), FitContext()).examples_per_second


def theirs(folder: Path, base: Path, rows: list[dict[str, Any]]) -> float:
    """Examples/s of plain ``Trainer``, which is given the finished pixels."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    recipe = recipe_for("image-classification", base, folder)
    spec, data = prepare_in_memory(recipe, rows)
    batches = [spec.task.collate(data.train.features([i]), spec.preprocessing) for i in range(len(data.train))]
    plain = [{"pixel_values": batch["pixel_values"][0], "labels": int(batch["labels"][0])} for batch in batches]
    trainer = Trainer(
        model=spec.task.build_model(recipe, spec.preprocessing.state),
        args=TrainingArguments(
            output_dir=str(folder / "hf"),
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            save_strategy="no",
            logging_steps=1000,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=plain,
        data_collator=default_data_collator,
    )
    begun = time.perf_counter()
    trainer.train()
    return len(plain) / (time.perf_counter() - begun)


def main() -> None:
    """Time both, in turn, and print the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(2)
    speeds: dict[str, list[float]] = {"Trainer": [], "Tunesmith": []}
    with tempfile.TemporaryDirectory() as folder:
        base = vit(Path(folder, "base"))
        rows = pictures(options.examples + 16, side=SIDE)
        for _ in range(options.repeats):
            for name, way in (("Trainer", theirs), ("Tunesmith", ours)):
                speeds[name].append(way(Path(folder, "work"), base, rows))
                print(f"  {name:12s} {speeds[name][-1]:6.1f} examples/s", flush=True)
    ratios = [a / b for a, b in zip(speeds["Tunesmith"], speeds["Trainer"], strict=True)]
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    print(json.dumps({"examples_per_second": medians, "ratio": round(float(np.median(ratios)), 3)}))


if __name__ == "__main__":
    main()
