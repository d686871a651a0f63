"""On a GPU: one update equals the CPU's within tolerance, out of memory is explained, and how fast the loop is beside Trainer.

Run by ``tests/benchmarks/gpu.sh``; needs neither Ray nor the network. Prints a Markdown table; exits 1 where a check fails.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_text import bert, mixed_texts, ours, theirs
from support.data import pictures, sentences, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_vit
from tunesmith.cluster.ports import free_port
from tunesmith.errors import UserError
from tunesmith.training.fit import FitContext, FitData, fit

TOLERANCE = 2e-4
"""Largest difference of a parameter after one update in float32; kernels sum in another order."""

TOLERANCE_BF16 = 1e-3
"""The same between bfloat16 and float32; on a CPU it is 6e-5."""

BAR = 4.5
"""Least ratio of examples/s in bf16, the loop to Trainer with dynamic padding."""

SMALL = 2 * 2**30
"""Bytes that the GPU is cut down to, so that memory runs out."""

CASES = {
    "text-classification": (tiny_bert, texts),
    "token-classification": (tiny_bert, sentences),
    "image-classification": (tiny_vit, pictures),
}


def one_update(
    name: str, folder: Path, base: Path, rows: list[dict[str, Any]], use_gpu: bool, **settings: Any
) -> dict[str, torch.Tensor]:
    """Parameters after one SGD update (plain gradients: Adam would blow up differences near zero)."""
    given = {
        "max_steps": 1,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "optim": "sgd",
        "learning_rate": 0.1,
        "per_device_train_batch_size": 32,
        "use_gpu": use_gpu,
    }
    spec, data = prepare_in_memory(recipe_for(name, base, folder, **given | settings), rows)
    state = fit(spec, FitData(data.train), FitContext()).model.state_dict()
    whole = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in state.items()}
    return {key: value.detach().cpu() for key, value in whole.items()}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a parameter."""
    return max(float((one[key].float() - other[key].float()).abs().max()) for key in one)


@contextmanager
def group_of_one() -> Iterator[None]:
    """A process group of this process alone: sharding needs one."""
    given = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    before = {name: os.environ.get(name) for name in given}
    os.environ |= given
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def advised(message: str) -> dict[str, int]:
    """The settings that an out-of-memory message names; empty where it names none.

    >>> advised("→ 4 of them fit: set training.per_device_train_batch_size=4 training.gradient_accumulation_steps=8 (…)")
    {'per_device_train_batch_size': 4, 'gradient_accumulation_steps': 8}
    """
    return {key: int(value) for key, value in re.findall(r"training\.(\w+)=(\d+)", message)}


def out_of_memory(folder: Path, base: Path) -> dict[str, int]:
    """What is advised where 512 long texts do not fit, after training as advised; empty where they fit."""
    whole = torch.cuda.get_device_properties(0).total_memory
    rows = [{**row, "text": " ".join((row["text"].split() * 127)[:254])} for row in mixed_texts(544, 0)]
    batch = {"batching": "fixed", "per_device_train_batch_size": 512}
    found: dict[str, int] = {}
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(SMALL / whole)
    try:
        try:
            one_update("text-classification", folder, base, rows, True, **batch)
        except UserError as error:
            found = advised(str(error))
        gc.collect()  # the error held the model that did not fit
        torch.cuda.empty_cache()
        if found:
            one_update("text-classification", folder, base, rows, True, **batch | found)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return found


def speeds(folder: Path, base: Path, rows: list[dict[str, Any]], use_gpu: bool, bf16: bool) -> tuple[float, float]:
    """Examples/s of the loop, and of Trainer with dynamic padding, each after a warm-up."""
    batch = {"per_device_train_batch_size": 128, "bf16": bf16}
    for part in (rows[: len(rows) // 8], rows):
        mine, _ = ours(folder, base, part, 4, use_gpu=use_gpu, **batch)
        other, _ = theirs(folder, base, part, 4, use_cpu=not use_gpu, **batch)
    return mine, other


def check(scratch: Path) -> Iterator[tuple[str, str, bool]]:
    """Each check in words, what came of it, and whether that is well."""
    for name, (model, rows) in CASES.items():
        folder = Path(scratch, name)
        base = model(folder / "base")
        on_cpu, on_gpu = (one_update(name, folder / str(gpu), base, rows(64), gpu) for gpu in (False, True))
        worst = furthest(on_cpu, on_gpu)
        told = f"{worst:.2e} (≤ {TOLERANCE:.0e})"
        yield f"{name}: CPU and GPU after one update differ by at most", told, worst <= TOLERANCE
        worst = furthest(on_cpu, one_update(name, folder / "bf16", base, rows(64), True, bf16=True))
        told = f"{worst:.2e} (≤ {TOLERANCE_BF16:.0e})"
        yield f"{name}: CPU in fp32 and GPU in bf16 differ by at most", told, worst <= TOLERANCE_BF16
    base = bert(Path(scratch, "bert"))
    found = out_of_memory(Path(scratch, "small"), base)
    told = ", ".join(f"{key}={value}" for key, value in found.items()) or "it fitted, or no batch is named"
    yield "512 long texts on 2 GiB: what is advised, and trains", told, bool(found)
    for bf16 in (False, True):
        mine, other = speeds(Path(scratch, "speed"), base, mixed_texts(8192, 0), True, bf16)
        words = f"text, 6-layer BERT, {'bf16' if bf16 else 'fp32'}, examples/s: the loop, Trainer, ratio"
        well = not bf16 or mine / other >= BAR
        yield words, f"{mine:,.0f}, {other:,.0f}, {mine / other:.1f}" + (f" (≥ {BAR})" if bf16 else ""), well
    rows, folder = texts(64), Path(scratch, "sharded")
    base = tiny_bert(folder / "base")
    alone = one_update("text-classification", folder / "alone", base, rows, True)
    with group_of_one():
        worst = furthest(alone, one_update("text-classification", folder / "fsdp", base, rows, True, fsdp=True))
    yield "sharded on one GPU, after one update differs by at most", f"{worst:.2e} (≤ {TOLERANCE:.0e})", worst <= TOLERANCE


def main() -> int:
    """Check, time, print."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was checked")
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n\n| check | value |\n| --- | --- |")
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for what, value, well in check(Path(scratch)):
            failed = failed or not well
            print(f"| {what} | {value}{'' if well else ' **failed**'} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
