"""Layer groups of real architectures, from their module trees alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from support.models import tiny_bert, tiny_detr, tiny_resnet, tiny_vit, tiny_wav2vec2
from tunesmith.errors import ModelError
from tunesmith.training.parameters import head_parameters, layer_groups, with_running_statistics

pytestmark = pytest.mark.unit

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}


def blocks(pattern: str, numbers: range) -> list[str]:
    return [pattern.format(number) for number in reversed(numbers)]


def bert(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert(folder, layers=3))


def distilbert(folder: Path) -> Any:
    config = transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=16)
    return transformers.DistilBertForSequenceClassification(config)


def roberta(folder: Path) -> Any:
    return transformers.RobertaForTokenClassification(transformers.RobertaConfig(vocab_size=50, **SMALL))


def llama(folder: Path) -> Any:
    return transformers.LlamaForSequenceClassification(transformers.LlamaConfig(vocab_size=50, **SMALL))


def vit(folder: Path) -> Any:
    return transformers.AutoModelForImageClassification.from_pretrained(tiny_vit(folder))


def resnet(folder: Path) -> Any:
    return transformers.AutoModelForImageClassification.from_pretrained(tiny_resnet(folder))


def yolos(folder: Path) -> Any:
    return transformers.AutoModelForObjectDetection.from_pretrained(tiny_detr(folder))


def ctc(folder: Path) -> Any:
    return transformers.AutoModelForCTC.from_pretrained(tiny_wav2vec2(folder))


def bart(folder: Path) -> Any:
    config = transformers.BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    return transformers.BartForSequenceClassification(config)


EXPECTED: dict[Any, list[str]] = {
    bert: ["head", "bert.encoder.layer.2, bert.pooler", *blocks("bert.encoder.layer.{}", range(2)), "bert.embeddings"],
    distilbert: ["head", *blocks("distilbert.transformer.layer.{}", range(3)), "distilbert.embeddings"],
    roberta: ["head", *blocks("roberta.encoder.layer.{}", range(3)), "roberta.embeddings"],
    llama: ["head", "model.layers.2, model.norm", *blocks("model.layers.{}", range(2)), "model.embed_tokens"],
    vit: ["head", "vit.layers.1, vit.layernorm", "vit.layers.0", "vit.embeddings"],
    resnet: ["head", *blocks("resnet.encoder.stages.{}", range(2)), "resnet.embedder"],
}


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_groups_go_from_the_head_down(make: Any, tmp_path: Path) -> None:
    assert [group.name for group in layer_groups(make(tmp_path))] == EXPECTED[make]


@pytest.mark.parametrize("make", [*EXPECTED, yolos, ctc, bart], ids=lambda make: make.__name__)
def test_every_parameter_is_in_one_group(make: Any, tmp_path: Path) -> None:
    model = make(tmp_path)
    groups = layer_groups(model)
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert groups[0].name == "head"
    assert set(groups[0].parameters) == set(head_parameters(model))
    assert len(groups) >= 4
    placed = [name for group in groups for name in group.modules]
    assert len(placed) == len(set(placed))
    assert {name for name, _ in with_running_statistics(model)} <= set(placed)


def test_the_head_of_a_detector_is_what_stands_outside_its_trunk(tmp_path: Path) -> None:
    heads = {name.partition(".")[0] for name in layer_groups(yolos(tmp_path))[0].parameters}
    assert heads == {"class_labels_classifier", "bbox_predictor"}


def test_the_decoder_comes_before_the_encoder(tmp_path: Path) -> None:
    order = [group.name for group in layer_groups(bart(tmp_path))]
    places = [
        next(i for i, name in enumerate(order) if f"{part}.layers.{n}" in name)
        for part in ("decoder", "encoder")
        for n in (1, 0)
    ]
    assert places == sorted(places)


class Parallel(torch.nn.Module):
    """A model that keeps the parts of its layers in lists side by side, as XLM does."""

    base_model_prefix = "trunk"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Module()
        self.trunk.attentions = torch.nn.ModuleList(torch.nn.MultiheadAttention(4, 1) for _ in range(2))
        self.trunk.norms = torch.nn.ModuleList(torch.nn.LayerNorm(4) for _ in range(2))
        self.classifier = torch.nn.Linear(4, 2)


def test_lists_of_one_length_side_by_side_are_one_stack() -> None:
    names = [group.name for group in layer_groups(Parallel())]
    assert names == ["head", "trunk.attentions.1, trunk.norms.1", "trunk.attentions.0, trunk.norms.0"]


def test_adapters_are_in_the_group_of_their_layer(tmp_path: Path) -> None:
    from tunesmith.recipe.adaptation import LoraSection
    from tunesmith.tasks import adapters

    model = bert(tmp_path)
    adapters.inject(model, LoraSection(), ["classifier"], "base", None)
    groups = layer_groups(model)
    assert [group.name for group in groups] == EXPECTED[bert]
    assert sum("lora_" in name for name in groups[2].parameters) == 4


class Plain(torch.nn.Module):
    """A model without layers of one kind."""

    base_model_prefix = "trunk"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        self.classifier = torch.nn.Linear(4, 2)


def test_layers_that_cannot_be_grouped_are_named() -> None:
    with pytest.raises(ModelError, match=r"cannot be grouped.*trunk \(Sequential, 40 parameters\).*trunk\.0 \(Linear"):
        layer_groups(Plain())


def test_a_head_that_cannot_be_told_is_said_so() -> None:
    with pytest.raises(ModelError, match=r"head of Sequential cannot be told.*0 \(Linear, 6 parameters\)"):
        head_parameters(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_a_head_inside_the_trunk_is_found_by_the_number_of_classes(tmp_path: Path) -> None:
    model = bert(tmp_path)
    type(model).base_model_prefix, kept = "", type(model).base_model_prefix
    try:
        assert head_parameters(model) == ["classifier.weight", "classifier.bias"]
    finally:
        type(model).base_model_prefix = kept
