"""Loading what Hugging Face saved: heads that fit and heads that do not, and what is said where nothing can be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from support.models import tiny_bert, tiny_resnet, tiny_vit
from tunesmith.errors import ModelError
from tunesmith.recipe import Recipe
from tunesmith.tasks import hub

pytestmark = pytest.mark.unit

BERT = AutoModelForSequenceClassification


def recipe(base: str | Path, **model: Any) -> Recipe:
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(base), **model},
        "data": {"train": "a.csv"},
    }
    return Recipe.from_dict(values, check_paths=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A BERT that answers with two classes of its own; its head is made easy to recognise."""
    folder = tiny_bert(tmp_path / "base", labels=["neg", "pos"], layers=1)
    model = BERT.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.fill_(7.0)
        model.classifier.bias.fill_(5.0)
    model.save_pretrained(folder)
    return folder


def built(base: Path, labels: list[str], **model: Any) -> Any:
    return hub.build_classifier(BERT, recipe(base, **model), labels)


def test_a_head_with_the_same_labels_in_the_same_order_is_kept(base: Path) -> None:
    model = built(base, ["neg", "pos"])
    assert torch.all(model.classifier.weight == 7)
    assert torch.all(model.classifier.bias == 5)


@pytest.mark.parametrize("labels", [["pos", "neg"], ["cat", "dog"], ["a", "b", "c"]], ids=["order", "names", "number"])
def test_any_other_head_is_made_afresh_and_the_rest_is_kept(base: Path, labels: list[str]) -> None:
    torch.manual_seed(0)
    model = built(base, labels)
    assert model.config.id2label == dict(enumerate(labels))
    assert model.config.label2id == {label: i for i, label in enumerate(labels)}
    assert model.classifier.weight.shape == (len(labels), 32)
    assert 0 < model.classifier.weight.abs().max() < 1
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3), "drawn as the model draws its weights"
    assert torch.all(model.classifier.bias == 0)
    kept = BERT.from_pretrained(base).state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(tensor, kept[name]), name
    torch.manual_seed(0)
    assert torch.equal(built(base, labels).classifier.weight, model.classifier.weight), "the seed decides the head"
    torch.manual_seed(1)
    assert not torch.equal(built(base, labels).classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_heads_of_image_models_are_found_too(make: Any, tmp_path: Path) -> None:
    model = hub.build_classifier(AutoModelForImageClassification, recipe(make(tmp_path / "base")), ["a", "b"])
    (head,) = [name for name in hub.reset_head(model) if name]
    assert head.startswith("classifier")


def test_weights_are_float32_whatever_was_saved(base: Path) -> None:
    BERT.from_pretrained(base).to(torch.bfloat16).save_pretrained(base)
    assert {tensor.dtype for tensor in built(base, ["a", "b"]).parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in hub.load_saved(BERT, str(base)).parameters()} == {torch.float32}


def test_a_head_of_other_classes_can_be_refused(base: Path) -> None:
    assert built(base, ["neg", "pos"], ignore_mismatched_sizes=False) is not None
    with pytest.raises(ModelError) as caught:
        built(base, ["cat", "dog", "cow"], ignore_mismatched_sizes=False)
    message = str(caught.value)
    assert "answers with 2 classes ('neg', 'pos')" in message
    assert "the data has 3 classes ('cat', 'dog', 'cow')" in message
    assert "model.ignore_mismatched_sizes: true" in message
    assert "data.labels" in message


def test_dropout_is_replaced_everywhere(base: Path, tmp_path: Path) -> None:
    model = built(base, ["neg", "pos"], dropout=0.3)
    found = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {0.3}
    assert model.config.attention_probs_dropout_prob == 0.3
    with pytest.raises(ModelError, match=r"model.dropout: ResNetConfig has no dropout to set. Leave model.dropout out"):
        hub.build_classifier(AutoModelForImageClassification, recipe(tiny_resnet(tmp_path / "resnet"), dropout=0.3), ["a", "b"])


def test_a_base_with_the_same_labels_is_loaded_as_it_is(base: Path) -> None:
    model = hub.load_base(BERT, recipe(base), ["neg", "pos"])
    assert model is not None
    assert torch.all(model.classifier.weight == 7)  # type: ignore[union-attr, arg-type]
    assert hub.load_base(BERT, recipe(base), ["pos", "neg"]) is None


def test_a_folder_without_a_config_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ModelError, match=r"no config.json \(it holds weights.bin\)\n    → Point model.model_name_or_path"):
        built(tmp_path, ["a", "b"])
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"no config.json \(it holds nothing\)"):
        hub.load_config(recipe(tmp_path))


def test_weights_that_are_not_safetensors_are_not_loaded(base: Path) -> None:
    weights = base / "model.safetensors"
    torch.save(BERT.from_pretrained(base).state_dict(), base / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors weights, and Tunesmith loads no others"):
        built(base, ["a", "b"])


@pytest.mark.parametrize("spoilt", [b"", b"not safetensors at all", None], ids=["empty", "text", "cut"])
def test_spoilt_weights_are_a_model_error(base: Path, spoilt: bytes | None) -> None:
    weights = base / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] if spoilt is None else spoilt)
    with pytest.raises(ModelError, match="cannot load the model"):
        built(base, ["a", "b"])


@pytest.mark.parametrize("text", ["{", '{"model_type": "no-such-model"}', "{}"], ids=["json", "unknown", "untyped"])
def test_a_spoilt_config_is_a_model_error(base: Path, text: str) -> None:
    (base / "config.json").write_text(text)
    with pytest.raises(ModelError, match="cannot load the model"):
        hub.load_config(recipe(base))


def test_a_model_of_another_kind_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        built(tiny_resnet(tmp_path / "resnet"), ["a", "b"])


def test_a_folder_without_a_tokenizer_is_a_model_error(base: Path) -> None:
    for file in base.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer .*\n    → .* model.processor_name_or_path"):
        hub.load_processor(AutoTokenizer, recipe(base))
    with pytest.raises(ModelError, match="cannot load the processor"):
        hub.load_processor(AutoImageProcessor, recipe(base))


def test_the_processor_may_stand_elsewhere(base: Path, tmp_path: Path) -> None:
    other = tiny_bert(tmp_path / "other", layers=1)
    for file in base.glob("tokenizer*"):
        file.unlink()
    found = hub.load_processor(AutoTokenizer, recipe(base, processor_name_or_path=str(other)))
    assert found.name_or_path == str(other)


def test_a_hub_id_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        hub.load_config(recipe("someone/no-such-model-anywhere"))
    message = str(caught.value)
    assert "'someone/no-such-model-anywhere'" in message
    assert "not on this machine and the Hub cannot be reached" in message
    assert "hf download someone/no-such-model-anywhere" in message


def test_a_folder_beside_the_recipe_is_found(base: Path) -> None:
    values = {"task": "text-classification", "model": {"model_name_or_path": "base"}, "data": {"train": "a.csv"}}
    found = Recipe.from_dict(values, base_dir=base.parent, check_paths=False)
    assert hub.own_labels(hub.load_config(found)) == ["neg", "pos"]


def test_a_model_at_a_uri_is_fetched_once(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    memory = fsspec.filesystem("memory")
    memory.put(str(base), "memory://models/base", recursive=True)
    assert hub.own_labels(hub.load_config(recipe("memory://models/base"))) == ["neg", "pos"]
    memory.rm("memory://models", recursive=True)
    assert hub.own_labels(hub.load_config(recipe("memory://models/base"))) == ["neg", "pos"]
    config = json.loads((base / "config.json").read_text())
    config["id2label"] = {"0": "bad", "1": "good"}
    (base / "config.json").write_text(json.dumps(config))
    memory.put(str(base), "memory://models/base", recursive=True)
    hub.fetched.cache_clear()  # as another process
    assert hub.own_labels(hub.load_config(recipe("memory://models/base"))) == ["bad", "good"], "another model lies there now"
    with pytest.raises(ModelError, match="there is no model folder at 'memory://models/other'"):
        hub.load_config(recipe("memory://models/other"))


def test_labels_are_read_in_the_order_of_the_outputs(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    names = [f"c{i}" for i in range(12)]
    config["id2label"] = {str(i): names[i] for i in sorted(range(12), key=str)}
    (base / "config.json").write_text(json.dumps(config))
    assert hub.own_labels(hub.load_config(recipe(base))) == names
