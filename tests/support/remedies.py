"""Every key that mends something, for every kind of task: its settings, and a training on the ranks of a group with it on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from support.cases import CASES, write
from support.fits import losses
from tunesmith.data.old import prepare_old
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
from tunesmith.training.parts import open_parts

TASKS = ("text", "multi-label", "token", "vit", "detection", "ctc")
CLASSES = ("text", "multi-label", "token", "vit")
"""Those with classes that can be counted."""

AUGMENTED = {
    "text": [{"name": "word_dropout", "p": 1}, {"name": "typos", "p": 1}],
    "multi-label": [{"name": "word_swap", "p": 1}],
    "token": [{"name": "word_dropout", "p": 1}],
    "vit": [{"name": "hflip"}, {"name": "noise", "p": 1}, {"name": "mixup", "p": 0.5}],
}

WEIGHED = {"text": "low", "multi-label": "long", "token": "B-X", "vit": "se"}
"""A class of each to weigh: the classes are too even for weights by their counts."""

REMEDIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "plain": ({}, TASKS),
    "loss": ({"loss": "symmetric_cross_entropy"}, CLASSES),
    "loss_args": ({"loss": "focal", "loss_args": {"gamma": 3.0}}, CLASSES),
    "class_weights": ({}, CLASSES),
    "label_smoothing_factor": ({"label_smoothing_factor": 0.2}, CLASSES),
    "sampling": ({"sampling": "balanced"}, CLASSES),
    "augment": ({}, CLASSES),
    "lora": ({"adaptation": "lora", "lora": {"r": 2, "lora_dropout": 0.0}, "learning_rate": 0.3}, TASKS),
    "linear-probe": ({"adaptation": "linear-probe"}, TASKS),
    "bitfit": ({"adaptation": "bitfit"}, TASKS),
    "unfreeze": ({"unfreeze": {"every_steps": 1}}, TASKS),
    "layerwise_lr_decay": ({"layerwise_lr_decay": 0.3}, TASKS),
    "l2_sp": ({"l2_sp": 2.0, "l2_sp_head": 0.5}, TASKS),
    "ema_decay": ({"ema_decay": 0.5}, TASKS),
    "replay": ({"replay": {"share": 0.25}}, TASKS),
    "groups-balanced": ({}, TASKS),
    "groups-reweigh": ({}, ("text", "vit")),
}
"""Of ``training:`` (augmentation and groups: of ``data:``), and the cases of :data:`support.cases.CASES` with use of it."""

STEPS, KEPT = 5, 3
"""Updates, four to an epoch, and the one after which the training is killed and resumed."""


def recipe_with(remedy: str, case: str, folder: Path) -> Recipe:
    """The case's recipe with one remedy, its data prepared, and the old data where it takes some.

    By plain descent: Adam turns the rounding errors of gradients that are zero (an attention key's bias) into steps.
    """
    settings = {**REMEDIES[remedy][0]}
    if remedy == "replay":
        settings["replay"] = {**settings["replay"], "data": write(CASES[case].rows(90)[64:78], folder / "old")}
    if remedy == "class_weights":
        settings["class_weights"] = {WEIGHED[case]: 4.0}
    recipe = CASES[case].recipe(
        folder,
        **{
            "optim": "sgd",
            "learning_rate": 0.03,
            "per_device_train_batch_size": 4,
            "max_steps": STEPS,
            "save_steps": KEPT,
            "eval_strategy": "steps",
            "eval_steps": 2,
            **settings,
        },
    )
    if remedy.startswith("groups-"):
        write([{**row, "site": "a" if k % 5 else "b"} for k, row in enumerate(CASES[case].rows(64))], folder / "data")
        recipe = recipe.override(f"data.groups={{columns: [site], method: {remedy.removeprefix('groups-')}}}")
    if remedy == "augment":
        recipe = recipe.override(f"data.augment={AUGMENTED[case]}")
    if remedy == "replay":
        kept = write(CASES[case].rows(90)[78:], folder / "kept")
        recipe = recipe.override(f"evaluation.retention.data={{kept: {kept}}}")
    parts(recipe)
    return recipe


def parts(recipe: Recipe) -> tuple[FitSpec, FitData]:
    """Spec and data of the fit that a worker makes of the recipe."""
    task = load_task(recipe.task)
    prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
    return open_parts(recipe, task, prepared, prepare_old(recipe, task, prepared))


@dataclass(frozen=True)
class Trained:
    """What a fit came to."""

    losses: list[float]
    tensors: dict[str, npt.NDArray[Any]]
    told: list[dict[str, Any]]
    """The lines of validation and retention, of rank 0."""


class Killed(Exception):
    """Stands for the death of the process."""


def trained(recipe: Recipe, context: FitContext) -> Trained:
    """One fit."""
    spec, data = parts(recipe)
    result = fit(spec, data, context)
    told = [event for event in result.history if event["kind"] in ("eval", "retention")]
    return Trained(losses(result), {name: value.numpy().copy() for name, value in result.model.state_dict().items()}, told)


def trained_twice(context: FitContext, recipes: list[Recipe]) -> list[tuple[Trained, Trained]]:
    """For each recipe a fit in one go, whose last checkpoint stays in the recipe's folder; and one killed and resumed."""
    return [_trained_twice(context, recipe) for recipe in recipes]


def _trained_twice(context: FitContext, recipe: Recipe) -> tuple[Trained, Trained]:
    place = Path(recipe.training.output_dir)

    def fresh(**values: Any) -> FitContext:
        return FitContext(rank=context.rank, world_size=context.world_size, **values)

    def keep(metrics: dict[str, float], folder: Path | None) -> None:
        if folder is not None and metrics["step"] in (KEPT, STEPS):
            shutil.copytree(folder, place / f"step-{int(metrics['step'])}")

    whole = trained(recipe, fresh(report=keep))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    resumed = trained(recipe, fresh(start=Start(place / f"step-{KEPT}"), report=lambda *_: None))
    return whole, resumed
