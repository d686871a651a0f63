"""Validation F1 of the loop beside ``transformers.Trainer``, over seeds: faster batches must not cost quality.

The model and the texts of ``bench_text.py``, fp32, one process. Fine-tuning starts from a model that knows the words (it has
learned on short texts which sixth of the vocabulary they are of) and learns another task: which half most words are of. Both
ways see the same texts for as many epochs, and the same number of examples an update on average. A seed draws the texts to
learn from, their order and the new head; the texts to judge by are the same for all.

    python tests/benchmarks/bench_text_quality.py [--seeds 0 1 2 3 4] [--keep FOLDER]

What is in FOLDER already (the model to start from, fits that have ended) is not made again, so that it can be done in pieces.
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
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_text import WAYS, bert, mixed_texts
from support.fits import prepare_in_memory, recipe_for
from support.models import WORDS
from tunesmith.training.fit import FitContext, FitData, fit, validate

COMPARED = ("Tunesmith", "Trainer, dynamic padding")
TOPICS = 6
FINE_TUNING = {"per_device_train_batch_size": 16, "num_train_epochs": 1, "learning_rate": 1e-4}


def topics(n: int, seed: int) -> list[dict[str, Any]]:
    """Texts of 2 to 8 words, most of which are of one sixth of the vocabulary: their label."""
    rng = np.random.default_rng((seed, TOPICS))
    size = len(WORDS) // TOPICS
    rows = []
    for length in rng.integers(2, 9, n):
        topic = int(rng.integers(TOPICS))
        ids = np.where(
            rng.random(length) < 0.8, rng.integers(0, size, length) + topic * size, rng.integers(0, len(WORDS), length)
        )
        rows.append({"text": " ".join(WORDS[i] for i in ids), "label": f"topic {topic}"})
    return rows


def pretrained(folder: Path, rows: int) -> Path:
    """The model that both ways start from; made once."""
    place = folder / "pretrained"
    if place.exists():
        return place
    settings = {"per_device_train_batch_size": 64, "num_train_epochs": 1, "learning_rate": 2e-4, "warmup_ratio": 0.1}
    recipe = recipe_for(
        "text-classification",
        bert(folder / "base"),
        folder / "work",
        eval_strategy="no",
        load_best_model_at_end=False,
        logging_steps=10,
        **settings,
    )
    spec, data = prepare_in_memory(recipe, topics(rows, 99), 128)
    assert data.validation is not None
    result = fit(spec, FitData(data.train), FitContext())
    found = validate(spec, result.model, data.validation, FitContext())["f1_macro"]
    print(f"the model to start from: F1 {found:.3f} on its own task", flush=True)
    result.model.save_pretrained(folder / "unfinished")
    spec.preprocessing.processor.save_pretrained(folder / "unfinished")
    (folder / "unfinished").rename(place)
    return place


def interval(differences: list[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of paired differences."""
    low, high = stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
    return float(low), float(high)


def main() -> None:
    """Fit what is not recorded yet, and print the F1 of each seed, and the paired difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--examples", type=int, default=256, help="texts to learn from")
    parser.add_argument("--held-out", type=int, default=400, help="texts to judge by")
    parser.add_argument("--pretraining", type=int, default=6400, help="short texts that the first model learns from")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / "f1.json"
        found: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.exists() else {}
        start = pretrained(folder, options.pretraining)
        held_out = mixed_texts(options.held_out, 1_000)
        for seed in options.seeds:
            scores = found.setdefault(str(seed), {})
            for name in COMPARED:
                if name in scores:
                    continue
                rows, begun = mixed_texts(options.examples, seed) + held_out, time.perf_counter()
                _, scores[name] = WAYS[name](folder / "work", start, rows, options.held_out, seed, **FINE_TUNING)
                print(f"  seed {seed} {name:26s} F1 {scores[name]:.4f}  ({time.perf_counter() - begun:.0f} s)", flush=True)
                record.write_text(json.dumps(found))
    both = [scores for scores in found.values() if all(name in scores for name in COMPARED)]
    differences = [scores[COMPARED[0]] - scores[COMPARED[1]] for scores in both]
    summary: dict[str, Any] = {name: round(float(np.mean([scores[name] for scores in both])), 4) for name in COMPARED}
    summary |= {"seeds": len(both), "difference": round(float(np.mean(differences)), 4)}
    if len(both) > 1:
        summary["interval"] = [round(one, 4) for one in interval(differences)]
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
