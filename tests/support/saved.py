"""A model folder as a run leaves it, and a predictor over the same model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from support.cases import Case
from tunesmith.evaluation.predictor import Predictor
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing
from tunesmith.training.checkpoint import save_model


def peer(task: str, folder: str, **options: Any) -> Any:
    """The pipeline of Transformers over a model folder, on the CPU."""
    make: Any = transformers.pipeline  # its type is one overload for each of their tasks
    return make(task, model=folder, device="cpu", **options)


def saved(case: Case, folder: Path, **data: Any) -> tuple[Predictor, str]:
    """An untrained model with a spread-out head for the case's data: its answers differ from example to example."""
    recipe = Recipe.from_dict(
        {
            "task": case.task,
            "model": {"model_name_or_path": str(case.base(folder / "base"))},
            "data": {"train": "unused.jsonl", **data},
        },
        check_paths=False,
    )
    task = load_task(recipe.task)
    state = task.freeze(task.collect(case.rows(40)), recipe)
    preprocessing = Preprocessing(state, task.load_processor(recipe))
    torch.manual_seed(3)
    model = task.build_model(recipe, state).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" in name:
                parameter.normal_(0, 0.5)
    save_model(folder / "model", model, task, preprocessing)
    return Predictor(task, model, preprocessing, device="cpu"), str(folder / "model")
