"""Packing: the outputs of a padded batch, without its padding; a model that cannot be packed is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from tunesmith.evaluation.packing import NAME, Packing

pytestmark = pytest.mark.unit

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
    "max_position_embeddings": 170,
}
PACKED: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL),
    "xlm-roberta": XLMRobertaConfig(**SMALL),
    "electra": ElectraConfig(**SMALL, embedding_size=8),
    "distilbert": DistilBertConfig(
        vocab_size=97, dim=16, n_layers=2, n_heads=2, hidden_dim=32, num_labels=3, max_position_embeddings=170
    ),
}
LEFT: dict[str, PretrainedConfig] = {
    "deberta: its attention is its own": DebertaV2Config(**SMALL),
    "modernbert: windows of attention": ModernBertConfig(**SMALL, local_attention=16, pad_token_id=0),
}


def made(config: PretrainedConfig, auto: Any = AutoModelForSequenceClassification) -> Any:
    torch.manual_seed(0)
    model = auto.from_config(copy.deepcopy(config)).eval()
    for parameter in model.parameters():  # random everywhere: biases too, and no head of zeros
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch(lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 97, (len(lengths), max(lengths)), generator=generator)
    return {"input_ids": torch.where(mask, ids, 1), "attention_mask": mask.long()}


@pytest.mark.parametrize("auto", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("lengths", [[3, 20, 20, 1, 90], [90, 20, 20, 3], [7], [5, 5, 5]])
def test_outputs_are_those_of_the_padded_batch(kind: str, auto: Any, lengths: list[int]) -> None:
    model, given = made(PACKED[kind], auto), batch(lengths)
    with torch.inference_mode():
        want = model(**given).logits
        packing = Packing.of(model)
        assert packing is not None
        with packing.on():
            got = model(**given).logits
        outside = model(**given).logits
    if want.dim() == 3:
        want, got, outside = (logits[given["attention_mask"].bool()] for logits in (want, got, outside))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outside, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PACKED)
def test_a_padding_token_inside_a_text_is_one_of_its_words(kind: str) -> None:
    """RoBERTa's family leaves it out where it numbers positions; packed or not, the same text has the same answer."""
    model, given = made(PACKED[kind]), batch([3, 20, 9])
    given["input_ids"][1, 4] = model.config.pad_token_id or 0
    with torch.inference_mode():
        want = model(**given).logits
        packing = Packing.of(model)
        assert packing is not None
        with packing.on():
            got = model(**given).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_pass_computes_no_padding() -> None:
    model = made(PACKED["bert"])
    packing = Packing.of(model)
    assert packing is not None
    seen: list[tuple[int, ...]] = []
    model.bert.encoder.register_forward_pre_hook(lambda module, arguments: seen.append(tuple(arguments[0].shape)))
    with torch.inference_mode(), packing.on():
        model(**batch([3, 20, 20, 90]))
        model(**batch([20, 20]))
    with torch.inference_mode():
        model(**batch([3, 90]))
    assert seen == [(1, 133, 16), (2, 20, 16), (2, 90, 16)]


@pytest.mark.parametrize("kind", LEFT)
def test_a_model_that_cannot_be_packed_is_left_as_it_was(kind: str) -> None:
    model, given = made(LEFT[kind]), batch([3, 20, 90])
    attention = model.config._attn_implementation
    with torch.inference_mode():
        want = model(**given).logits
        assert Packing.of(model) is None
        torch.testing.assert_close(model(**given).logits, want, rtol=0, atol=0)
    assert model.config._attn_implementation == attention != NAME


def test_an_albert_is_packed_or_left_but_never_wrong() -> None:
    """One set of weights for all layers, and an encoder that embeds first: whatever comes of it, outputs stay the same."""
    model, given = made(AlbertConfig(**SMALL, embedding_size=8)), batch([3, 20, 90])
    with torch.inference_mode():
        want = model(**given).logits
        packing = Packing.of(model)
        if packing is not None:
            with packing.on():
                torch.testing.assert_close(model(**given).logits, want, rtol=1e-5, atol=1e-5)


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    model, given = made(PACKED["bert"]), batch([3, 20])
    with torch.inference_mode():
        want = model(**given).logits
        packing = Packing.of(model)
        assert packing is not None
        with packing.on(), pytest.raises(IndexError):
            model(**{**given, "input_ids": given["input_ids"] + 1000})
        torch.testing.assert_close(model(**given).logits, want, rtol=1e-5, atol=1e-5)
