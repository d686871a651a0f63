"""BitFit and LoRA in the loop: what they train, that ranks and a resume change nothing, and what is saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.data import pictures, texts
from support.fits import Fitted, fitted, on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_vit
from tunesmith.errors import ModelError
from tunesmith.evaluation.predictor import Predictor
from tunesmith.training.adaptation import adapt
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext, FitResult, fit

pytestmark = pytest.mark.unit

SETTINGS: dict[str, Any] = {
    "learning_rate": 5e-3,
    "logging_steps": 1,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
    "weight_decay": 0.1,
}
LORA: dict[str, Any] = {"adaptation": "lora", "lora": {"r": 4, "lora_dropout": 0.1}}
ROWS = texts(80)


def recipe_of(tmp_path: Path, name: str = "a", **settings: Any) -> Any:
    base = tmp_path / "base"
    if not base.exists():
        tiny_bert(base, dropout=0.1, spread=0.2)
    return recipe_for("text-classification", base, tmp_path / name, **{**SETTINGS, **settings})


def fitted_and_kept(recipe: Any, rows: Any, kept: Path) -> FitResult:
    """One fit; its last checkpoint is copied to ``kept``."""

    def report(metrics: Any, folder: Path | None) -> None:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(str(folder), kept)

    return fit(*prepare_in_memory(recipe, rows), FitContext(report=report))


def started(recipe: Any, rows: Any) -> dict[str, torch.Tensor]:
    """The state before the first update."""
    torch.manual_seed(recipe.training.seed)
    spec, _ = prepare_in_memory(recipe, rows)
    torch.manual_seed(recipe.training.seed)
    return dict(spec.task.build_model(recipe, spec.preprocessing.state).state_dict())


def test_bitfit_trains_the_biases_and_the_head(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, adaptation="bitfit")
    before = started(recipe, ROWS)
    result = fit(*prepare_in_memory(recipe, ROWS), FitContext())
    changed = {name for name, value in result.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith("bias") or name.startswith("classifier.")}
    (told,) = (event for event in result.history if event["kind"] == "trained")
    assert told["trained"] == sum(before[name].numel() for name in changed)
    assert told["parameters"] == sum(value.numel() for value in result.model.parameters())


def test_bitfit_without_biases_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.LlamaForSequenceClassification(config)
    with pytest.raises(ModelError, match="LlamaForSequenceClassification has no biases outside its head"):
        adapt(model, recipe_of(tmp_path, adaptation="bitfit"), lambda: model)


def test_lora_trains_the_adapters_and_the_head(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **LORA)
    before = started(recipe, ROWS)
    result = fit(*prepare_in_memory(recipe, ROWS), FitContext())
    after = dict(result.model.named_parameters())
    trained = {name for name, value in after.items() if value.requires_grad}
    assert {name.replace(".base_layer", "") for name in after if ".lora_" not in name} == set(dict(before))
    assert trained == {name for name in after if ".lora_" in name or name.startswith("classifier.")}
    adapted = {name.partition(".lora_")[0].rpartition(".")[2] for name in trained if ".lora_" in name}
    assert adapted == {"query", "value"}, "what peft has for BERT"
    for name, value in after.items():
        if name not in trained:
            torch.testing.assert_close(value, before[name.replace(".base_layer", "")], rtol=0, atol=0)
    assert any(bool(value.any()) for name, value in after.items() if ".lora_B" in name)


def test_a_saved_model_has_the_adapters_merged_and_plain_transformers_loads_it(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    recipe = recipe_of(tmp_path, **LORA)
    result = fitted_and_kept(recipe, ROWS, tmp_path / "kept")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept" / "model").eval()
    assert not any("lora" in name for name in plain.state_dict())
    spec, data = prepare_in_memory(recipe, ROWS)
    batch = spec.task.collate(data.train.features(range(8)), spec.preprocessing)
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch).logits, result.model.eval()(**batch).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it by its old name
def test_peft_loads_the_kept_adapter_onto_the_base(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    recipe = recipe_of(tmp_path, **LORA)
    result = fitted_and_kept(recipe, ROWS, tmp_path / "kept")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "kept" / "model" / "adapter")).eval()
    spec, data = prepare_in_memory(recipe, ROWS)
    batch = spec.task.collate(data.train.features(range(8)), spec.preprocessing)
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(theirs(**batch).logits, result.model.eval()(**batch).logits, rtol=1e-5, atol=1e-6)


def test_adapters_kept_alone_are_merged_into_their_base_when_loaded(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{**LORA, "lora": {"r": 4, "merge": False}})
    result = fitted_and_kept(recipe, ROWS, tmp_path / "kept")
    folder = tmp_path / "kept" / "model"
    assert not list(folder.glob("*.safetensors"))
    loaded = Predictor.load(folder, device="cpu")
    assert not any("lora" in name for name in loaded.model.state_dict())
    spec, _ = prepare_in_memory(recipe, ROWS)
    live = Predictor(spec.task, result.model, spec.preprocessing, device="cpu")
    asked = [row["text"] for row in ROWS[:8]]
    for one, other in zip(loaded.predict(asked), live.predict(asked), strict=True):
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{**LORA, "lora": {"r": 4, "merge": False}})
    fitted_and_kept(recipe, ROWS, tmp_path / "kept")
    weights = tmp_path / "base" / "model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.layer.0.output.dense.bias"] += 1e-3
    from safetensors.torch import save_file

    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"belongs to another base.*base with weights [0-9a-f]{12}"):
        Predictor.load(tmp_path / "kept" / "model", device="cpu")
    with pytest.raises(ModelError, match="belongs to another base"):
        fit(*prepare_in_memory(recipe, ROWS), FitContext(start=Start(tmp_path / "kept")))


def test_adapters_alone_need_a_base_without_random_parts(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{**LORA, "lora": {"merge": False}})
    weights = tmp_path / "base" / "model.safetensors"
    from safetensors.torch import save_file

    save_file({k: v for k, v in load_file(weights).items() if "pooler" not in k}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="random numbers each time"):
        fit(*prepare_in_memory(recipe, ROWS), FitContext())


class Interrupted(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize(
    "settings", [LORA, {"adaptation": "bitfit"}, {"adaptation": "linear-probe"}], ids=lambda s: s["adaptation"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(settings: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, save_steps=3, layerwise_lr_decay=1 if settings["adaptation"] == "linear-probe" else 0.8, **settings
    )

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if metrics["step"] == 6:
            shutil.copytree(str(folder), tmp_path / "kept")
        if metrics["step"] > 6:
            raise Interrupted

    whole = fitted(FitContext(report=lambda *_: None), recipe, ROWS)
    with pytest.raises(Interrupted):
        fitted(FitContext(report=report), recipe, ROWS)
    resumed = fitted(FitContext(start=Start(tmp_path / "kept"), report=lambda *_: None), recipe, ROWS)
    assert resumed[0] == whole[0][6:]
    for name, value in whole[1].items():
        np.testing.assert_array_equal(value, resumed[1][name], err_msg=name)


def fitted_all(context: FitContext, recipes: list[Any], rows: Any) -> list[Fitted]:
    return [fitted(FitContext(rank=context.rank, world_size=context.world_size), recipe, rows) for recipe in recipes]


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"adaptation": "lora", "layerwise_lr_decay": 0.8, "unfreeze": {"every_steps": 2}},
        {"adaptation": "bitfit"},
        {"adaptation": "linear-probe"},
    ]
    tiny_bert(tmp_path / "base", spread=0.2)
    alone = [recipe_of(tmp_path, f"a{i}", **{**way, "per_device_train_batch_size": 16}) for i, way in enumerate(ways)]
    shared = [recipe_of(tmp_path, f"b{i}", **way) for i, way in enumerate(ways)]
    first, second = on_ranks(2, fitted_all, shared, ROWS)
    for recipe, zero, one in zip(alone, first, second, strict=True):
        whole = fitted(FitContext(), recipe, ROWS)
        np.testing.assert_allclose(zero[0], whole[0], atol=1e-4)
        for name, value in zero[1].items():
            np.testing.assert_array_equal(value, one[1][name], err_msg=name)
            if not name.endswith("key.bias"):  # its gradient is 0 but for rounding, which Adam makes as large as any
                np.testing.assert_allclose(value, whole[1][name], atol=1e-3, err_msg=name)


def test_lora_finds_the_attention_of_a_model_that_peft_has_no_entry_for(tmp_path: Path) -> None:
    base = tiny_vit(tmp_path / "base", spread=0.2)
    recipe = recipe_for("image-classification", base, tmp_path / "a", **{**SETTINGS, **LORA, "num_train_epochs": 1})
    result = fitted_and_kept(recipe, pictures(48), tmp_path / "kept")
    adapted = {
        name.partition(".lora_")[0].rpartition(".")[2] for name, _ in result.model.named_parameters() if ".lora_" in name
    }
    assert adapted == {"q_proj", "v_proj"}
    Predictor.load(tmp_path / "kept" / "model", device="cpu")
