"""WiSE-FT keeps (1 - alpha) · base + alpha · fine-tuned, and chooses alpha on the validation split within the ceiling."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from support.data import MemorySplit, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.evaluation.predictor import Predictor
from tunesmith.recipe import Recipe
from tunesmith.training.base_weights import base_weights
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit, validate
from tunesmith.training.spec import OldData
from tunesmith.training.wise_ft import mix

LEARNS: dict[str, Any] = {"learning_rate": 3e-3, "num_train_epochs": 4, "eval_strategy": "no", "load_best_model_at_end": False}


def trained(tmp_path: Path, labels: list[str] | None, alphas: Any) -> tuple[FitSpec, FitData, torch.nn.Module]:
    base = tiny_bert(tmp_path / "base", spread=0.2, labels=labels)
    recipe = recipe_for("text-classification", base, tmp_path / "a", wise_ft=alphas, **LEARNS)
    spec, data = prepare_in_memory(recipe, texts(120))
    return spec, data, fit(spec, data).model


@pytest.mark.parametrize("labels", [None, ["high", "low"]])
def test_the_mixture_is_the_formula_and_a_fresh_head_stays(labels: list[str] | None, tmp_path: Path) -> None:
    spec, data, model = trained(tmp_path, labels, 0.25)
    base = base_weights(spec.task, spec.recipe, spec.preprocessing.state)
    tuned = {name: value.clone() for name, value in model.state_dict().items()}
    mixed = mix(spec, model, data.validation)
    for name, value in model.state_dict().items():
        wanted = 0.75 * base[name] + 0.25 * tuned[name] if name in base else tuned[name]
        torch.testing.assert_close(value, wanted, msg=name)
    assert mixed.record["fresh"] == ([] if labels else ["classifier.bias", "classifier.weight"])
    assert mixed.alpha == 0.25


def test_the_best_of_a_list_is_chosen_on_the_validation_split(tmp_path: Path) -> None:
    spec, data, model = trained(tmp_path, ["high", "low"], [0.0, 0.5, 1.0])
    assert data.validation is not None
    mixed = mix(spec, model, data.validation)
    values = {one["alpha"]: one["value"] for one in mixed.record["tried"]}
    assert list(values) == [0.0, 0.5, 1.0]
    assert values[mixed.alpha] == max(values.values()) > values[0.0]
    assert validate(spec, model, data.validation, FitContext())["f1_macro"] == pytest.approx(values[mixed.alpha])


def test_a_share_beyond_the_retention_ceiling_is_not_chosen(tmp_path: Path) -> None:
    spec, data, model = trained(tmp_path, ["high", "low"], [0.0, 1.0])
    base = Predictor.load_base(spec.recipe, spec.task, spec.preprocessing.state)
    assert base is not None
    rows = texts(40, seed=7)
    own = [{**row, "label": answer["label"]} for row, answer in zip(rows, base.predict(rows), strict=True)]
    sets = {"base": OldData(MemorySplit(spec.task, own, spec.preprocessing))}
    assert mix(_ceiling(spec, None), model, data.validation, sets).alpha == 1.0

    spec, data, model = trained(tmp_path / "again", ["high", "low"], [0.0, 1.0])
    mixed = mix(_ceiling(spec, 0.0), model, data.validation, sets)
    drops = {one["alpha"]: one["drops"]["base"] for one in mixed.record["tried"]}
    assert drops[0.0] == 0.0 < drops[1.0]
    assert mixed.alpha == 0.0


def _ceiling(spec: FitSpec, most: float | None) -> FitSpec:
    retention = spec.recipe.evaluation.retention.model_copy(update={"max_drop": most})
    evaluation = spec.recipe.evaluation.model_copy(update={"retention": retention})
    recipe: Recipe = spec.recipe.model_copy(update={"evaluation": evaluation})
    return dataclasses.replace(spec, recipe=recipe)
