"""Examples per second on texts of mixed length: the loop beside ``transformers.Trainer`` with each of its own switches.

The 6-layer, 384-wide BERT, log-normal lengths (mean 39, 95th percentile 105, at most 256 tokens), one process. All ways see the
same examples, the same number of examples per update on average, and the same number of epochs. Ways are timed in turn, so that
a busy machine slows all of them; the ratio is of the medians.

    python tests/benchmarks/bench_text.py [--examples 512] [--repeats 3]

Whether the quality is the same is measured by ``bench_text_quality.py``.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.fits import prepare_in_memory, recipe_for
from support.models import WORDS, tiny_tokenizer
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit, validate

BATCH = 32


def bert(folder: Path) -> Path:
    """6 layers, 384 wide, 12 heads: MiniLM's shape, with random weights."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS) + 5,
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            max_position_embeddings=256,
        )
    ).save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


def mixed_texts(n: int, seed: int) -> list[dict[str, Any]]:
    """Texts of log-normal length; the label is the half of the vocabulary that most words are of."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in np.clip(rng.lognormal(np.log(26), 0.85, n), 2, 254).astype(int):
        half = len(WORDS) // 2
        ids = np.where(rng.random(length) < 0.65, rng.integers(0, half, length), rng.integers(half, 2 * half, length))
        low = rng.random() < 0.5
        ids = ids if low else (ids + half) % len(WORDS)
        rows.append({"text": " ".join(WORDS[i] for i in ids), "label": "low" if low else "high"})
    return rows


def ours(
    folder: Path, base: Path, rows: list[dict[str, Any]], held_out: int, seed: int = 42, **settings: Any
) -> tuple[float, float]:
    """Examples/s and validation F1 of the loop."""
    recipe = recipe_for(
        "text-classification",
        base,
        folder,
        **{
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": 1,
            "logging_steps": 1000,
            "eval_strategy": "no",
            "seed": seed,
        }
        | {"load_best_model_at_end": False}
        | settings,
    )
    spec, data = prepare_in_memory(recipe, rows, held_out)
    gc.collect()
    gc.freeze()
    result = fit(spec, FitData(data.train), FitContext())
    return result.examples_per_second, f1(spec, result.model, data)


def theirs(
    folder: Path, base: Path, rows: list[dict[str, Any]], held_out: int, seed: int = 42, **settings: Any
) -> tuple[float, float]:
    """Examples/s and validation F1 of plain ``Trainer``."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    epochs, learning_rate = settings.pop("num_train_epochs", 1), settings.pop("learning_rate", 5e-5)
    batch = settings.pop("per_device_train_batch_size", BATCH)
    fixed, use_cpu = settings.pop("fixed", False), settings.pop("use_cpu", True)
    recipe = recipe_for("text-classification", base, folder)
    spec, data = prepare_in_memory(recipe, rows, held_out)
    tokenizer = spec.preprocessing.processor
    features = [data.train.features([i])[0].values for i in range(len(data.train))]
    plain = [
        {"input_ids": f["input_ids"].tolist(), "labels": int(f["labels"]), "length": len(f["input_ids"])} for f in features
    ]
    torch.manual_seed(seed)
    trainer = Trainer(
        model=spec.task.build_model(recipe, spec.preprocessing.state),
        args=TrainingArguments(
            output_dir=str(folder / "hf"),
            per_device_train_batch_size=batch,
            num_train_epochs=epochs,
            learning_rate=learning_rate,
            save_strategy="no",
            logging_steps=1000,
            report_to=[],
            use_cpu=use_cpu,
            disable_tqdm=True,
            seed=seed,
            **settings,
        ),
        train_dataset=plain,
        data_collator=DataCollatorWithPadding(
            tokenizer, padding="max_length" if fixed else True, max_length=256 if fixed else None
        ),
    )
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    return len(plain) * epochs / seconds, f1(spec, trainer.model, data)


def f1(spec: FitSpec, model: Any, data: FitData) -> float:
    """Macro F1 on the held-out rows."""
    assert data.validation is not None
    return validate(spec, model, data.validation, FitContext())["f1_macro"]


WAYS: dict[str, Callable[..., tuple[float, float]]] = {
    "Trainer, padded to 256": lambda *a, **k: theirs(*a, fixed=True, **k),
    "Trainer, dynamic padding": theirs,
    "Trainer, group_by_length": lambda *a, **k: theirs(*a, train_sampling_strategy="group_by_length", **k),
    "Trainer, batch_rebalance": lambda *a, **k: theirs(*a, train_sampling_strategy="batch_rebalance", **k),
    "Tunesmith": ours,
    "Tunesmith, bf16": lambda *a, **k: ours(*a, bf16=True, **k),
}


def main() -> None:
    """Time every way, in turn, and print a table and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=list(WAYS)[1:], help="padding to 256 takes minutes and is left out")
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        base = bert(Path(folder, "base"))
        rows = mixed_texts(options.examples + 64, 0)
        lengths = np.asarray([len(row["text"].split()) + 2 for row in rows])
        print(f"lengths: mean {lengths.mean():.1f}, 95th percentile {np.percentile(lengths, 95):.0f}, most {lengths.max()}")
        speeds: dict[str, list[float]] = {name: [] for name in options.ways}
        for _ in range(options.repeats):
            for name in options.ways:
                speed, _ = WAYS[name](Path(folder, "work"), base, rows, 64)
                speeds[name].append(speed)
                print(f"  {name:28s} {speed:6.1f} examples/s", flush=True)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
    plain = medians.get("Trainer, dynamic padding", float("nan"))
    print(
        json.dumps(
            {
                "examples_per_second": medians,
                "over_dynamic": {k: round(v / plain, 2) for k, v in medians.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
