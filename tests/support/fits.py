"""Runs the training loop in this process, or in two processes that form a group, on tiny models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from support.data import MemorySplit
from tunesmith.cluster.ports import free_port
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Metrics, Preprocessing
from tunesmith.training.fit import FitContext, FitData, FitResult, FitSpec, fit, validate

TIMEOUT = 100
"""Seconds in which ranks must end."""
PRELOADED = [
    "tunesmith.training.fit",
    "tunesmith.data.prepare",
    "accelerate",
    "datasets",
    "peft",
    "transformers.models.bert.modeling_bert",
]
"""What the process imports that ranks are forked from, once for all tests of a session: dearer than most of their work."""


def recipe_for(task: str, base: Path, folder: Path, **training: Any) -> Recipe:
    """A recipe that needs no file but the base model: the data is handed to the loop in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text("text,label\n")
    values = {
        "task": task,
        "model": {"model_name_or_path": str(base)},
        "data": {"train": str(folder / "rows.csv")},
        "training": {"bf16": False, "use_gpu": False, **training},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return Recipe.load(folder / "recipe.yaml")


def prepare_in_memory(recipe: Recipe, rows: list[dict[str, Any]], held_out: int = 16) -> tuple[FitSpec, FitData]:
    """Spec and data of a fit over rows by role; the last ``held_out`` rows are for validation."""
    task = load_task(recipe.task)
    state = task.freeze(task.merge([task.collect(rows)]), recipe)
    preprocessing = Preprocessing(state, task.load_processor(recipe))
    splits = [MemorySplit(task, part, preprocessing) for part in (rows[:-held_out], rows[-held_out:])]
    return FitSpec(recipe, task, preprocessing), FitData(splits[0], splits[1])


def losses(result: FitResult) -> list[float]:
    """The training losses that were logged."""
    return [event["loss"] for event in result.history if event["kind"] == "step"]


def on_ranks(world_size: int, work: Callable[..., Any], *arguments: Any, timeout: float = TIMEOUT) -> list[Any]:
    """``work(context, *arguments)`` on ranks of a gloo group, each a process; what they return within so many seconds."""
    port = free_port()
    made = torch.multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    queue = made.SimpleQueue()
    start: Any = torch.multiprocessing.start_processes  # type: ignore[attr-defined]  # untyped
    given = (world_size, port, queue, work, arguments)
    ranks = start(_rank, given, nprocs=world_size, join=False, start_method="forkserver")
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout
    while len(results) < world_size:
        if not queue.empty():  # emptied before joining: a full pipe would keep the ranks from ending
            rank, result = queue.get()
            results[rank] = result
        elif ranks.join(timeout=0.1) and queue.empty():
            raise RuntimeError(f"the ranks ended with {len(results)} of {world_size} results")
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            raise TimeoutError(f"{world_size} ranks did not end within {timeout} s")
    while not ranks.join(timeout=TIMEOUT):
        pass
    return [results[rank] for rank in range(world_size)]


def _rank(rank: int, world_size: int, port: int, queue: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        queue.put((rank, work(FitContext(rank=rank, world_size=world_size), *arguments)))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


Fitted = tuple[list[float], dict[str, npt.NDArray[Any]]]


def fitted(context: FitContext, recipe: Recipe, rows: list[dict[str, Any]]) -> Fitted:
    """Losses and final parameters of one fit: what parity tests compare."""
    spec, data = prepare_in_memory(recipe, rows)
    result = fit(spec, data, context)
    return losses(result), {name: tensor.numpy().copy() for name, tensor in result.model.state_dict().items()}


def fitted_each(context: FitContext, cases: list[tuple[Recipe, list[dict[str, Any]]]]) -> list[Fitted]:
    """:func:`fitted` for several cases in the same processes."""
    return [fitted(context, recipe, rows) for recipe, rows in cases]


class Recorded(MemorySplit):
    """A split that remembers which examples it was asked for."""

    def __init__(self, split: Any) -> None:
        self.__dict__.update(split.__dict__)
        self.asked: list[int] = []

    def features(self, indices: Any) -> Any:
        self.asked.extend(indices)
        return super().features(indices)


def drawn(context: FitContext, recipe: Recipe, rows: list[dict[str, Any]]) -> tuple[list[int], Fitted]:
    """The examples that a fit with balanced sampling fed to its model, in order, and what came of it."""
    spec, data = prepare_in_memory(recipe, rows)
    split = Recorded(data.train)
    result = fit(spec, FitData(split, data.validation), context)
    looked = len(split) + 1  # the sampler looks at the first, then at each
    tensors = {name: tensor.numpy().copy() for name, tensor in result.model.state_dict().items()}
    return split.asked[looked:], (losses(result), tensors)


def fitted_and_drawn(
    context: FitContext, cases: list[tuple[Recipe, list[dict[str, Any]]]], recipe: Recipe, rows: list[dict[str, Any]]
) -> tuple[list[Fitted], list[int]]:
    """:func:`fitted_each`, and which examples one more fit drew: all that one group of processes, dear to start, is asked."""
    return fitted_each(context, cases), drawn(context, recipe, rows)[0]


def fitted_prepared(
    context: FitContext, recipes: list[Recipe]
) -> list[tuple[list[float], dict[str, npt.NDArray[Any]], Metrics]]:
    """Losses, parameters and verdict on the validation split of one fit for each recipe, whose data is prepared on disk."""
    return [_fitted_prepared(context, recipe) for recipe in recipes]


def _fitted_prepared(context: FitContext, recipe: Recipe) -> tuple[list[float], dict[str, npt.NDArray[Any]], Metrics]:
    task = load_task(recipe.task)
    data = prepare(recipe, task, output_dir=recipe.training.output_dir)
    spec = FitSpec(recipe, task, Preprocessing(data.state, task.load_processor(recipe)))
    result = fit(spec, FitData(data.splits["train"]), context)
    metrics = validate(spec, result.model, data.splits["validation"], context)
    tensors = {name: tensor.numpy().copy() for name, tensor in result.model.state_dict().items()}
    return losses(result), tensors, {name: value for name, value in metrics.items() if value == value}


def drawn_of_domains(context: FitContext, recipes: list[Recipe]) -> list[tuple[dict[str, int], dict[str, Any]]]:
    """Of each recipe's one epoch: what this rank fed to its model of each domain, and the parameters in the end."""
    found = []
    for recipe in recipes:
        task = load_task(recipe.task)
        prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
        spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))
        train = prepared.splits["train"]
        assert train.domains is not None
        split = Recorded(MemorySplit(task, train.examples(), spec.preprocessing))
        result = fit(spec, FitData(split, domains=train.domains), context)
        tensors = {name: tensor.numpy().copy() for name, tensor in result.model.state_dict().items()}
        found.append((train.domains.take(np.array(split.asked)).counts(), tensors))
    return found
