"""On a GPU: one update equals the CPU's within tolerance, out of memory is explained, and how fast the loop is beside Trainer.

Run by ``tests/benchmarks/gpu.sh``; needs neither Ray nor the network. Prints a Markdown table; exits 1 where a check fails.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_text import bert, mixed_texts
from support.data import MemorySplit, pictures, sentences, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_vit
from tunesmith.training.fit import FitContext, FitData, fit

TOLERANCE = 2e-4
"""Largest difference of a parameter after one update in float32; kernels sum in another order."""

CASES = {
    "text-classification": (tiny_bert, texts),
    "token-classification": (tiny_bert, sentences),
    "image-classification": (tiny_vit, pictures),
}


def one_update(name: str, folder: Path, base: Path, rows: list[dict[str, Any]], use_gpu: bool) -> dict[str, torch.Tensor]:
    """Parameters after one SGD update (plain gradients: Adam would blow up differences near zero)."""
    recipe = recipe_for(
        name,
        base,
        folder,
        max_steps=1,
        eval_strategy="no",
        load_best_model_at_end=False,
        optim="sgd",
        learning_rate=0.1,
        per_device_train_batch_size=32,
        use_gpu=use_gpu,
    )
    spec, data = prepare_in_memory(recipe, rows)
    result = fit(spec, FitData(data.train), FitContext())
    return {key: value.detach().cpu() for key, value in result.model.state_dict().items()}


def speed(folder: Path, base: Path, bf16: bool) -> float:
    """Examples/s of the loop on the 6-layer, 384-wide BERT after a warm-up."""
    rows = mixed_texts(8192, 0)
    recipe = recipe_for(
        "text-classification",
        base,
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=128,
        eval_strategy="no",
        load_best_model_at_end=False,
        logging_steps=1000,
        use_gpu=True,
        bf16=bf16,
    )
    spec, data = prepare_in_memory(recipe, rows)
    assert isinstance(data.train, MemorySplit)
    fit(spec, FitData(data.train), FitContext(steps=5))
    torch.cuda.synchronize()
    begun = time.perf_counter()
    fit(spec, FitData(data.train), FitContext())
    torch.cuda.synchronize()
    return len(data.train) / (time.perf_counter() - begun)


def main() -> int:
    """Check, time, print."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was checked")
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n\n| check | value |\n| --- | --- |")
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for name, (model, rows) in CASES.items():
            folder = Path(scratch, name)
            base = model(folder / "base")
            on_cpu, on_gpu = (one_update(name, folder / str(gpu), base, rows(64), gpu) for gpu in (False, True))
            worst = max(float((on_cpu[key] - on_gpu[key]).abs().max()) for key in on_cpu)
            failed = failed or worst > TOLERANCE
            print(f"| {name}: CPU and GPU after one update differ by at most | {worst:.2e} (≤ {TOLERANCE:.0e}) |")
        base = bert(Path(scratch, "bert"))
        for bf16 in (False, True):
            found = speed(Path(scratch, "s"), base, bf16)
            print(f"| text, 6-layer BERT, {'bf16' if bf16 else 'fp32'}, examples/s | {found:,.0f} |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
