"""How good a federation's model is beside one trained on all its rows together: the digits, ten sites, the same test images.

Over the seeds the head, the order of examples and the partition change. Every way sees each training row as often, in the same
batches of 8, along a cosine schedule that ends at nothing; *together* is one training of the rows that the sites train on, with
the recipe's own ``training:``. Differences are paired by seed; intervals are Student's, 95 %.

    python tests/benchmarks/bench_federated_quality.py [--seeds 5] [--cases iid skewed] [--methods fedavg scaffold]
        [--keep FILE] [--set KEY=VALUE …]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.bench_imbalance import interval
from support.engines import Case
from support.federation import LocalGrid
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

ROOT = Path(__file__).parents[2]
TOGETHER = "together"
METHODS = ("fedavg", "fedprox", "fedavgm", "fedadam", "scaffold", "fedbn", "median")
CASES = {
    "iid": ("federation.partition.by=iid",),
    "skewed": ("federation.partition.by=dirichlet", "federation.partition.alpha=0.1"),
}
"""Rows dealt out evenly; and each digit to few of the sites (arXiv:1905.12022 with α = 0.1)."""
BARS = {"iid": 0.01, "skewed": 0.95}
"""At most so much below *together*; at least so much of it, with the best method."""


def digits(folder: Path, overrides: list[str]) -> Recipe:
    """The example's recipe over its data, made here."""
    if not (folder / "data").exists():
        subprocess.run(
            [sys.executable, ROOT / "examples/digits/make_data.py", folder / "data"], check=True, capture_output=True
        )
    places = [f"data.train={folder}/data/train", f"data.test={folder}/data/test", f"training.output_dir={folder}/runs"]
    return Recipe.load(ROOT / "examples/digits/federated.yaml", [*places, "training.use_gpu=false", *overrides])


def accuracy(recipe: Recipe, place: str, way: str, folder: Path) -> float:
    """On the test images, after training in that way. In a process of its own."""
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.fit import FitContext, FitData, FitSpec, fit, validate
    from tunesmith.training.splits import chosen
    from tunesmith_federated.models import Base, put

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        if way != TOGETHER:
            recipe = recipe.override(f"federation.method={way}", check_paths=False)
        case = Case.make(Path(work, "case"), recipe, place)
        spec = FitSpec(case.recipe, case.task, Preprocessing(case.prepared.state, case.task.load_processor(case.recipe)))
        if way == TOGETHER:
            plain = case.recipe.override(
                "training.eval_strategy=no", "training.load_best_model_at_end=false", check_paths=False
            )
            rows = np.sort(np.concatenate(list(case.parts.train.values())))
            spec = FitSpec(plain.resolved(), spec.task, spec.preprocessing)
            model = fit(spec, FitData(chosen(case.prepared.splits["train"], rows)), FitContext()).model
        else:
            book = case.serve(LocalGrid(list(case.sites(Path(work, "sites")).values())), "here")
            model, _ = Base(case.recipe, case.task, case.prepared.state).adapted()
            put(model, book.tensors()[0])
        model.eval()
        return float(validate(spec, model, case.prepared.splits["test"], FitContext())["accuracy"])


def table(name: str, found: dict[str, list[float]]) -> bool:
    """Print the ways beside *together*; returns whether the case's bar is met."""
    print(f"\n**{name}**\n\n| way | accuracy | of together | paired difference, 95 % |\n| --- | --- | --- | --- |")
    together = found[TOGETHER]
    for way, values in found.items():
        beside = interval([one - other for one, other in zip(values, together, strict=True)])
        share = np.mean(values) / np.mean(together)
        shown = f"{100 * beside[0]:+.1f} ({100 * beside[1]:+.1f} to {100 * beside[2]:+.1f}) points" if way != TOGETHER else ""
        print(f"| {way} | {100 * np.mean(values):.1f} % | {100 * share:.1f} % | {shown} |")
    if name == "iid":
        return float(np.mean(together) - np.mean(found.get("fedavg", together))) <= BARS[name]
    return max(float(np.mean(values)) for way, values in found.items() if way != TOGETHER) >= BARS[name] * np.mean(together)


def main() -> int:
    """Train every way on every seed, two at a time; print a table for each case. Exits 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="*", choices=METHODS, help="of all; iid has fedavg alone by itself")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep scores here: a benchmark that was cut off goes on")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", dest="overrides", help="in the recipe, for every way"
    )
    options = parser.parse_args()
    kept: dict[str, float] = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    passed = True
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        folder = Path(scratch)
        recipe = digits(folder, options.overrides)
        place = str(prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir).path)
        for name in options.cases:
            ways = [TOGETHER, *(options.methods or (("fedavg",) if name == "iid" else METHODS))]
            wanted = {
                json.dumps([name, way, seed, options.overrides]): (way, seed) for way in ways for seed in range(options.seeds)
            }
            under_way = {}
            for key, (way, seed) in wanted.items():
                if key not in kept:
                    seeded = [f"training.seed={seed}", f"federation.partition.seed={seed}", *CASES[name]]
                    one = recipe.override(*seeded, check_paths=False)
                    under_way[pool.submit(accuracy, one, place, way, folder)] = key
            for done in as_completed(under_way):
                kept[under_way[done]] = done.result()
                print(f"  {under_way[done]}  {done.result():.3f}", flush=True)
                if options.keep:
                    options.keep.write_text(json.dumps(kept))
            passed &= table(name, {way: [kept[key] for key, (one, _) in wanted.items() if one == way] for way in ways})
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
