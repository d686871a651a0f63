"""The after-steps, between choosing the checkpoint and keeping its model: mixing with the base, then calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.data.old import OldPlaces
from tunesmith.data.prepared import PreparedData
from tunesmith.evaluation.calibration import calibrate
from tunesmith.evaluation.predictor import Predictor, calibrated
from tunesmith.recipe import Recipe
from tunesmith.tasks.adapters import take_over_head
from tunesmith.tasks.base import Metrics, Preprocessing, Task
from tunesmith.training.checkpoint import save_model
from tunesmith.training.spec import FitSpec, OldData
from tunesmith.training.wise_ft import mix


@dataclass(frozen=True)
class Finished:
    """What the after-steps did."""

    metrics: Metrics
    """Of the model that is kept, on the validation split."""
    records: dict[str, Any] = field(default_factory=dict)
    """``wise_ft`` and ``calibration`` for the manifest, where they were asked for."""


def finish(recipe: Recipe, task: Task, prepared: PreparedData, old: OldPlaces, folder: Path, metrics: Metrics) -> Finished:
    """Do what the recipe asks to the model in ``folder``, in place; ``metrics`` are those of the chosen checkpoint.

    Calibration comes last: mixing changes how sure the model is.
    """
    if recipe.training.wise_ft is None and recipe.evaluation.calibrate is None:
        return Finished(metrics)
    records: dict[str, Any] = {}
    spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))
    validation = prepared.splits.get("validation")
    predictor = Predictor(task, task.load_model(str(folder)), spec.preprocessing)
    if recipe.training.wise_ft is not None:
        retention = {name: OldData(place.open(), place.by) for name, place in old.retention.items()}
        mixed = mix(spec, predictor.model, validation, retention)
        records["wise_ft"], metrics = mixed.record, mixed.metrics or metrics
    if recipe.evaluation.calibrate is not None and validation is not None:
        predictor.model.eval()
        records["calibration"] = calibrate(predictor, validation, recipe.evaluation.seed)
    save_model(folder, predictor.model, task, spec.preprocessing)
    take_over_head(folder, predictor.model)
    return Finished(metrics, records)


def finished_predictor(recipe: Recipe, task: Task, prepared: PreparedData, folder: Path, finished: Finished) -> Predictor:
    """The model in ``folder`` after its after-steps, ready to answer as the run's predictor would."""
    model, told = task.load_model(str(folder)), finished.records.get("calibration") or {}
    if told.get("temperature") and not told["folded"]:
        model = calibrated(model, float(told["temperature"]))
    return Predictor(task, model, Preprocessing(prepared.state, task.load_processor(recipe)))
