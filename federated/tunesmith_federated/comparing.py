"""Was it worth it? The same recipe on all sites' rows together, and on each site's alone, judged on the same test rows.

Each is one training as `tunesmith train` would do it, with as many passes over its rows as a site makes in all rounds.
"""

from __future__ import annotations

import hashlib
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task
    from tunesmith.training.progress import Progress
    from tunesmith_federated.simulation.parts import Dealt

TOGETHER = "all rows together"
FOLDER = "federation/compared"
_LONGEST = 120
"""Letters of an encoded site in a file's name, which may have 255."""

Rows = npt.NDArray[np.int64]


def complete(parts: Dealt, run: Run) -> bool:
    """Whether nothing is left to train for the comparison."""
    from tunesmith import storage

    return all(storage.exists(place_of(run, name)) for name in (TOGETHER, *parts.train))


def train_rivals(recipe: Recipe, prepared: PreparedData, parts: Dealt, run: Run, progress: Progress) -> None:
    """Train them on the connected Ray, those that an interrupted call has left; their predictions go into the run."""
    import ray

    from tunesmith import storage

    section = recipe.federation
    rows: dict[str, Rows] = {TOGETHER: np.sort(np.concatenate(list(parts.train.values()))), **parts.train}
    missing = {name: mine for name, mine in rows.items() if not storage.exists(place_of(run, name))}
    train: Any = ray.remote(num_cpus=section.num_cpus, num_gpus=section.num_gpus)(_train)
    yaml = recipe.to_yaml()
    under_way = {train.remote(yaml, prepared.path, mine, max(1, int(section.num_cpus))): name for name, mine in missing.items()}
    while under_way:
        done = len(rows) - len(under_way)
        progress.handle({"kind": "prepare", "message": "Training for comparison", "done": done, "total": len(rows)})
        ready, _ = ray.wait(list(under_way), num_returns=1, timeout=10)
        for one in ready:
            storage.write_bytes(place_of(run, under_way.pop(one)), ray.get(one))


def place_of(run: Run, name: str) -> str:
    """Where the predictions of one of them are."""
    return run.file(f"{FOLDER}/{file_name(name)}.parquet")


def file_name(site: str) -> str:
    """A site's name as that of a file: it cannot leave its folder, hide, or be too long.

    >>> file_name("berlin_1"), file_name("../x")
    ('berlin_1', '%2E%2E%2Fx')
    """
    safe = urllib.parse.quote(site, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(safe) <= _LONGEST:
        return safe or "~"
    digest = hashlib.blake2b(site.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{safe[:_LONGEST]}~{digest}"


def _train(yaml: str, prepared: str, rows: Rows, threads: int) -> bytes:
    """One training, on a Ray worker; returns ``predictions.parquet`` of the split that runs are judged by."""
    import tempfile
    from pathlib import Path

    import torch

    from tunesmith.data import PreparedData
    from tunesmith.evaluation.judges import records_of
    from tunesmith.evaluation.predictions import write_predictions
    from tunesmith.recipe import Recipe
    from tunesmith.recipe.yaml_tree import parse
    from tunesmith.tasks import load_task
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
    from tunesmith.training.splits import chosen
    from tunesmith.training.validation import predictor_for

    torch.set_num_threads(threads)
    recipe = Recipe.from_dict(parse(yaml).values, check_paths=False).override(
        "training.eval_strategy=no", "training.load_best_model_at_end=false", check_paths=False
    )
    data, task = PreparedData.open(prepared), load_task(recipe.task)
    spec = FitSpec(recipe.resolved(), task, Preprocessing(data.state, task.load_processor(recipe)))
    made = fit(spec, FitData(chosen(data.splits["train"], rows)), FitContext())
    split = judged(data)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "predictions.parquet")
        made.model.eval()
        write_predictions(str(place), records_of(predictor_for(spec, made.model), split), split, {})
        return place.read_bytes()


def judged(data: PreparedData) -> Any:
    """The split that a run's own verdict is about."""
    return data.splits["test" if len(data.splits.get("test", ())) else "validation"]


def record(recipe: Recipe, task: Task, prepared: PreparedData, parts: Dealt, run: Run) -> None:
    """Which of them the report shows beside the federation, and by how much each is better or worse.

    The typical site is the one whose headline metric alone is the median (of an even number, the lower one).
    """
    from tunesmith.evaluation.judging import Scorer
    from tunesmith.evaluation.predictions import read_predictions
    from tunesmith.evaluation.results import plain
    from tunesmith.evaluation.statistics import difference
    from tunesmith.tasks.metrics import greater_is_better

    scorer = Scorer(task, prepared.state, recipe.evaluation)
    verdict = run.verdict
    metric, confidence = str(verdict["headline"]), recipe.evaluation.confidence
    together = scorer(read_predictions(run.file("predictions.parquet")))
    found: dict[str, Mapping[str, Any]] = {}
    for name in (TOGETHER, *sorted(parts.train)):
        other = scorer(read_predictions(place_of(run, name)))
        found[name] = {
            "value": plain(other.estimate(metric, confidence)),
            "federation": plain(difference(together, other, metric, confidence)),
            "examples": sum(map(len, parts.train.values())) if name == TOGETHER else len(parts.train[name]),
        }
    values = {name: float(found[name]["value"]["value"] or 0.0) for name in parts.train}
    order = sorted(parts.train, key=lambda name: values[name], reverse=not greater_is_better(metric))
    run.update(
        federation={
            "compared": {
                "metric": metric,
                "sites": found,
                "typical": order[(len(order) - 1) // 2],
                "worst": order[0],
                "best": order[-1],
                "federation": plain(together.estimate(metric, confidence)),
            }
        }
    )
