"""A masked language model replaces whole words by its likeliest ones, at the rate of the recipe, the same in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.models import WORDS, tiny_bert, tiny_masked_lm
from tunesmith.errors import ModelError
from tunesmith.recipe.augment import MaskedLM, WordDropout
from tunesmith.tasks.augment import masked_lm
from tunesmith.tasks.augment.masked_lm import MaskedWords, load
from tunesmith.tasks.augment.words import change_text, change_texts, change_words

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_masked_lm(tmp_path_factory.mktemp("mlm")))


@pytest.fixture(scope="module")
def model(folder: str) -> MaskedWords:
    return load(folder)


def operation(folder: str, **values: Any) -> MaskedLM:
    return MaskedLM(name="mlm", model_name_or_path=folder, **{"p": 1.0, "rate": 0.5, "top_k": 3, **values})


def rngs(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng((7, index)) for index in range(n)]


def sentences(n: int, longest: int = 20) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, int(rng.integers(1, longest)))) for _ in range(n)]


def test_a_text_becomes_the_same_in_any_batch(folder: str) -> None:
    texts, asked = sentences(60), operation(folder, top_k=20)
    together = change_texts(texts, [asked], rngs(60))
    alone = [change_text(text, [asked], rng) for text, rng in zip(texts, rngs(60), strict=True)]
    backwards = change_texts(texts[::-1], [asked], rngs(60)[::-1])[::-1]
    assert together == alone == backwards
    assert sum(one != other for one, other in zip(texts, together, strict=True)) > 50


def test_candidates_too_close_to_call_are_asked_alone(folder: str, model: MaskedWords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of the size that padding makes, in passes of several texts only, changes nothing."""
    texts, asked = sentences(40), operation(folder, top_k=30)
    expected = [change_text(text, [asked], rng) for text, rng in zip(texts, rngs(40), strict=True)]
    true = MaskedWords._logits

    def noisy(self: MaskedWords, features: Any) -> torch.Tensor:
        found = true(self, features)
        return found + 4e-4 * torch.sign(torch.randn_like(found)) if len(features) > 1 else found

    monkeypatch.setattr(MaskedWords, "_logits", noisy)
    assert change_texts(texts, [asked], rngs(40)) == expected
    monkeypatch.setattr(masked_lm, "MARGIN", 0.0)
    assert change_texts(texts, [asked], rngs(40)) != expected, "without the margin the noise shows"


def test_each_mask_is_filled_by_the_word_of_the_drawn_rank(folder: str, model: MaskedWords) -> None:
    words = sentences(1, 21)[0].split()
    drawn, spare = rngs(1)[0], rngs(1)[0]
    new = [word for word, _ in change_words(words, [operation(folder, top_k=4)], drawn)]
    spare.random()  # whether the text is changed at all
    hit, ranks = spare.random(len(words)) < 0.5, spare.integers(4, size=len(words))
    masked = " ".join("[MASK]" if gone else word for word, gone in zip(words, hit, strict=True))
    encoded = model.tokenizer(masked, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        logits = model.model(**encoded).logits[0][1:-1]
    for place, gone in enumerate(hit):
        order = [model.tokenizer.convert_ids_to_tokens(int(k)) for k in logits[place].argsort(descending=True)]
        likely = [word for word in order if word in WORDS and word != words[place]]
        assert new[place] == (likely[ranks[place]] if gone else words[place])
    assert hit.sum() > 3


def test_words_are_replaced_at_the_rate_and_never_by_themselves(folder: str) -> None:
    texts = sentences(400)
    changed = change_texts(texts, [operation(folder, rate=0.3)], rngs(400))
    pairs = [pair for old, new in zip(texts, changed, strict=True) for pair in zip(old.split(), new.split(), strict=True)]
    assert np.mean([one != other for one, other in pairs]) == pytest.approx(0.3, abs=0.03)
    half = change_texts(texts, [operation(folder, p=0.5, rate=1.0)], rngs(400))
    assert np.mean([one != other for one, other in zip(texts, half, strict=True)]) == pytest.approx(0.5, abs=0.08)


def test_punctuation_case_numbers_and_white_space_stay(folder: str) -> None:
    text = "(Word1,  WORD2)\n1990 word3! … [MASK]"
    found = change_text(text, [operation(folder, rate=1.0)], rngs(1)[0])
    first, second, year, third, dots, mask = found.split()
    assert (first[0], first[1].isupper(), first[-1]) == ("(", True, ",")
    assert second[:-1].isupper()
    assert second[-1] == ")"
    assert (year, third[-1], dots, mask) == ("1990", "!", "…", "[MASK]")
    assert "  " in found
    assert "\n" in found
    assert found != text


def test_it_takes_its_turn_among_other_operations(folder: str) -> None:
    text, both = sentences(1, 30)[0], [WordDropout(name="word_dropout", p=1, rate=0.4), operation(folder)]
    found = change_text(text, both, rngs(1)[0])
    assert len(found.split()) < len(text.split())
    assert not set(found.split()) <= set(text.split())


def test_what_the_model_cannot_hold_stays_as_it_is(folder: str) -> None:
    text = " ".join(WORDS[k % 60] for k in range(200))
    found = change_text(text, [operation(folder, rate=1.0)], rngs(1)[0]).split()
    assert sum(one != other for one, other in zip(text.split(), found, strict=True)) == 62, "64 positions, two of them special"


def test_only_masks_go_through_the_head_and_the_logits_are_the_models(model: MaskedWords) -> None:
    encoded = model.tokenizer(["word1 [MASK] word2", "[MASK] word3 word4 [MASK] word5"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        whole = model.model(**encoded).logits[encoded["input_ids"] == model.tokenizer.mask_token_id]
    rows = [
        {"input_ids": row[mask.bool()].numpy()}
        for row, mask in zip(*map(encoded.get, ("input_ids", "attention_mask")), strict=True)
    ]
    from tunesmith.tasks.base import Features

    found = model._logits([Features(row, length=len(row["input_ids"])) for row in rows])
    torch.testing.assert_close(found, whole[:, 5:], atol=1e-5, rtol=1e-5)


def test_it_is_loaded_once(folder: str) -> None:
    assert load(folder) is load(folder)


def test_a_model_without_the_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no head that fills masks"):
        load(str(tiny_bert(tmp_path / "bert", labels=["a", "b"])))


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        load(str(tmp_path / "none"))
