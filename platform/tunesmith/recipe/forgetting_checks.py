"""What cannot be seen in one field of the keys against forgetting, overfitting and miscalibration."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tunesmith.recipe.checks import Finding
from tunesmith.recipe.forgetting import ReplaySection
from tunesmith.recipe.recipe import Recipe


def forgetting(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Keys that have an effect, shares that are shares, and methods that whole parameters are needed for."""
    training = recipe.training
    if training.l2_sp_head and not training.l2_sp:
        what = "it goes with training.l2_sp, which is 0"
        yield Finding(_at("training.l2_sp_head"), what, "set training.l2_sp: 0.01, or write training.weight_decay instead")
    for key in ("l2_sp", "ema_decay"):
        if training.fsdp and getattr(training, key):
            what = "it needs every parameter whole on each worker, and fsdp shards them"
            yield Finding(_at(f"training.{key}"), what, f"leave out training.{key} or training.fsdp", ("training.fsdp",))
    if training.replay.data is None and training.replay.share != ReplaySection().share:
        fix = "add training.replay.data: FILE with labelled rows of the old task, or remove it"
        yield Finding(_at("training.replay.share"), "there is no old data to replay", fix)
    alphas = training.wise_ft if isinstance(training.wise_ft, list) else [training.wise_ft]
    if not alphas:
        yield Finding(_at("training.wise_ft"), "the list is empty", "write a share such as 0.5, or [0.25, 0.5, 0.75]")
    for alpha in alphas:
        if alpha is not None and not 0 <= alpha <= 1:
            what = f"{alpha:g} is no share of the fine-tuned model"
            yield Finding(_at("training.wise_ft"), what, "write a number from 0 (the base) to 1 (the fine-tuned model)")
    if len(alphas) > 1 and _no_validation(recipe):
        what = f"{len(alphas)} shares to choose from, and no validation split to choose by"
        yield Finding(_at("training.wise_ft"), what, "name one share, or give a validation split", ("data.split.validation",))


def retention(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """A ceiling has something to judge, when to judge it, and a choice to make."""
    section, training = recipe.evaluation.retention, recipe.training
    for key in ("max_drop", "choose"):
        if section.data is None and getattr(section, key) not in (None, False):
            fix = "add evaluation.retention.data: FILE, or remove it"
            yield Finding(_at(f"evaluation.retention.{key}"), "there is no retention data to judge", fix)
    if isinstance(section.data, dict):
        for name in section.data:
            if not name or "/" in name:
                what = f"{name!r} cannot be a retention set's name"
                yield Finding(_at("evaluation.retention.data"), what, "take letters, digits, dots, dashes, underscores")
    if section.choose and section.max_drop is None:
        what = "there is no ceiling to choose by"
        yield Finding(_at("evaluation.retention.choose"), what, "add evaluation.retention.max_drop: 0.02, or remove it")
    if section.max_drop is None or section.data is None:
        return
    ceiling = _at("evaluation.retention.max_drop")
    if training.eval_strategy == "no":
        what = "a ceiling is watched at every evaluation, and eval_strategy is no"
        yield Finding(ceiling, what, "set training.eval_strategy: epoch", ("training.eval_strategy",))
    elif not training.load_best_model_at_end:
        what = "the checkpoint that broke the ceiling would be kept: load_best_model_at_end is false"
        yield Finding(ceiling, what, "remove training.load_best_model_at_end", ("training.load_best_model_at_end",))


def calibration(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """There is a validation split to fit a temperature on."""
    if recipe.evaluation.calibrate is not None and _no_validation(recipe):
        what = "the temperature is fitted on the validation split, and there is none"
        fix = "give data.validation, or a share such as data.split.validation: 0.1"
        yield Finding(_at("evaluation.calibrate"), what, fix, ("data.split.validation", "data.validation"))


def _no_validation(recipe: Recipe) -> bool:
    return recipe.data.validation is None and recipe.data.split.validation == 0


def _at(key: str) -> tuple[str, ...]:
    return tuple(key.split("."))


CHECKS = (forgetting, retention, calibration)
