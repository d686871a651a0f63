"""After the checkpoint is chosen: the model is mixed, then calibrated, and the record says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from support.data import texts
from support.models import tiny_bert
from support.remedies import STEPS, parts, recipe_with, trained_twice
from tunesmith.data.old import OldPlaces, prepare_old
from tunesmith.data.prepare import prepare
from tunesmith.evaluation.predictor import Predictor
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing
from tunesmith.training.base_weights import base_weights
from tunesmith.training.checkpoint import save_model
from tunesmith.training.finish import Finished, finish
from tunesmith.training.fit import FitContext, FitSpec, validate


@pytest.mark.parametrize("asked", [True, False])
def test_the_kept_model_is_mixed_and_calibrated(asked: bool, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row) for row in texts(120)))
    (tmp_path / "old.jsonl").write_text("\n".join(json.dumps(row) for row in texts(30, seed=3)))
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(tiny_bert(tmp_path / "base", labels=["high", "low"], spread=0.2))},
        "data": {"train": str(tmp_path / "train.jsonl"), "split": {"validation": 0.4, "test": 0}},
        "training": {"output_dir": str(tmp_path / "runs"), **({"wise_ft": [0.5, 0.75]} if asked else {})},
        "evaluation": {"calibrate": "temperature", "retention": {"data": str(tmp_path / "old.jsonl")}} if asked else {},
    }
    recipe = Recipe.from_dict(values)
    task = load_task(recipe.task)
    prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
    spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))
    torch.manual_seed(5)
    model = task.build_model(recipe, prepared.state)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_model(tmp_path / "model", model, task, spec.preprocessing)
    tuned = {name: value.clone() for name, value in model.state_dict().items()}
    found = finish(recipe, task, prepared, prepare_old(recipe, task, prepared), tmp_path / "model", {"accuracy": 0.5})
    kept = task.load_model(str(tmp_path / "model")).state_dict()
    if not asked:
        assert found == Finished({"accuracy": 0.5})
        assert all(torch.equal(kept[name], value) for name, value in tuned.items())
        return
    assert json.loads(json.dumps(found.records)) == found.records, "plain data for the manifest"
    alpha, calibration = found.records["wise_ft"]["alpha"], found.records["calibration"]
    assert [one["drops"].keys() for one in found.records["wise_ft"]["tried"]] == [{"old"}] * 2
    base = base_weights(task, recipe, prepared.state)
    for name, value in kept.items():
        wanted = (1 - alpha) * base[name] + alpha * tuned[name]
        if name.startswith("classifier") and calibration.get("folded"):
            wanted = wanted / calibration["temperature"]
        torch.testing.assert_close(value, wanted, msg=name)
    judged = validate(spec, Predictor.load(tmp_path / "model", device="cpu").model, prepared.splits["validation"], FitContext())
    assert judged["accuracy"] == pytest.approx(found.metrics["accuracy"]), "dividing logits changes no answer"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it by its old name
def test_adapters_are_calibrated_as_the_model_that_they_are_merged_into(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    recipe = recipe_with("lora", "text", tmp_path).override("evaluation.calibrate=temperature")
    trained_twice(FitContext(), [recipe])
    (spec, data), folder = parts(recipe), Path(recipe.training.output_dir, f"step-{STEPS}", "model")
    batch = spec.task.collate(data.train.features(range(8)), spec.preprocessing)
    batch.pop("labels")

    def logits() -> tuple[torch.Tensor, torch.Tensor]:
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
        adapted = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
        merged = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            return adapted(**batch).logits, merged(**batch).logits

    before = logits()
    prepared = prepare(recipe, spec.task, output_dir=recipe.training.output_dir)
    calibration = finish(recipe, spec.task, prepared, OldPlaces(), folder, {}).records["calibration"]

    assert calibration["folded"], "the temperature is found, and stands in the weights"
    assert calibration["temperature"] != pytest.approx(1.0, abs=0.01)
    for one, other in zip(logits(), before, strict=True):
        torch.testing.assert_close(one, other / calibration["temperature"], rtol=1e-4, atol=1e-5)
