"""Where adapters go, what is refused, and that merging is the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from support.models import tiny_bert, tiny_resnet
from tunesmith.errors import ModelError
from tunesmith.recipe.adaptation import LoraSection
from tunesmith.tasks import adapters

pytestmark = pytest.mark.unit


@pytest.fixture
def bert(tmp_path: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert(tmp_path / "bert"))


@pytest.fixture
def resnet(tmp_path: Path) -> Any:
    return transformers.AutoModelForImageClassification.from_pretrained(tiny_resnet(tmp_path / "resnet"))


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    return transformers.GPT2ForSequenceClassification(config)


def settings(*names: str, **values: Any) -> LoraSection:
    return LoraSection.model_validate({**({"target_modules": list(names)} if names else {}), **values})


def filled(model: Any, section: LoraSection, head: list[str]) -> adapters.Adapters:
    """Adapters that do something: fresh ones are zero."""
    made = adapters.inject(model, section, head, "base", None)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_all_linear_means_every_linear_layer_outside_the_head(bert: Any) -> None:
    wanted = [n for n, m in bert.named_modules() if isinstance(m, torch.nn.Linear) and not n.startswith("classifier")]
    assert adapters.targets(bert, ["all-linear"], ["classifier"]) == wanted


def test_targets_are_taken_by_name_or_end_of_name(bert: Any) -> None:
    found = adapters.targets(bert, ["layer.1.attention.self.key", "pooler.dense"], ["classifier"])
    assert found == ["bert.encoder.layer.1.attention.self.key", "bert.pooler.dense"]


def test_targets_that_match_nothing_name_what_there_is(bert: Any, resnet: Any) -> None:
    with pytest.raises(ModelError, match=r"(?s)\['qurey'\] matches no module.*query, key, value, dense.*such as query"):
        adapters.targets(bert, ["qurey"], ["classifier"])
    with pytest.raises(ModelError, match=r"'q_proj' of training\.lora\.target_modules matches no module"):
        adapters.targets(bert, ["query", "q_proj"], ["classifier"])
    with pytest.raises(ModelError, match=r"\['auto'\] matches no module of ResNet.*it has convolution"):
        adapters.targets(resnet, ["auto"], ["classifier"])


def test_a_head_is_no_target(bert: Any) -> None:
    with pytest.raises(ModelError, match="matches no module"):
        adapters.targets(bert, ["classifier"], ["classifier"])


@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d", "embedding"])
def test_the_merged_model_is_the_same_function(kind: str, bert: Any, resnet: Any) -> None:
    model, target, head = {
        "linear": (bert, "dense", ["classifier"]),
        "conv1d": (gpt2(), "c_attn", ["score"]),
        "conv2d": (resnet, "convolution", ["classifier"]),
        "embedding": (bert, "word_embeddings", ["classifier"]),
    }[kind]
    inputs: Any = {"pixel_values": torch.randn(2, 3, 16, 16)} if kind == "conv2d" else {"input_ids": torch.arange(8).view(1, 8)}
    model.config.pad_token_id = 0
    model.eval()
    with torch.no_grad():
        before = model(**inputs).logits
        plain = type(model)(model.config).eval()
        made = filled(model, settings(target, r=2, lora_dropout=0.5), head)
        model.eval()
        wanted = model(**inputs).logits
        plain.load_state_dict(made.merged(model, model.state_dict()))
        assert not torch.allclose(before, wanted, atol=1e-3), "the adapters do something"
        torch.testing.assert_close(plain(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)


def test_a_merge_that_changes_the_outputs_is_refused(bert: Any) -> None:
    made = filled(bert, settings("query"), ["classifier"])
    weights = bert.state_dict()
    weights["bert.encoder.layer.0.attention.self.query.base_layer.weight"] = weights[
        "bert.encoder.layer.0.attention.self.query.base_layer.weight"
    ].bfloat16()
    with pytest.raises((ModelError, RuntimeError), match=r"layer\.0\.attention\.self\.query would change its outputs|dtype"):
        made.merged(bert, weights)


def test_merging_draws_no_random_numbers(bert: Any) -> None:
    made = filled(bert, settings("query", lora_dropout=0.5), ["classifier"])
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    bert.train()
    made.merged(bert, bert.state_dict())
    assert torch.equal(torch.rand(3), wanted)
    assert all(module.training for module in bert.modules())


def test_the_hash_is_that_of_the_trunk(bert: Any) -> None:
    wanted = adapters.trunk_hash(bert, ["classifier"])
    with torch.no_grad():
        bert.classifier.weight += 1
        assert adapters.trunk_hash(bert, ["classifier"]) == wanted
        bert.bert.pooler.dense.bias[0] += 1e-6
    assert adapters.trunk_hash(bert, ["classifier"]) != wanted


def test_adapters_of_other_settings_do_not_fit(tmp_path: Path, bert: Any) -> None:
    other = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert")
    filled(bert, settings("query"), ["classifier"]).write(tmp_path / "adapter", bert.state_dict())
    with pytest.raises(ModelError, match=r"does not fit: bert\.encoder\.layer\.0\.attention\.self\.key\.lora_A"):
        filled(other, settings("query", "key"), ["classifier"]).load(tmp_path / "adapter", other)
