"""What is particular to tags: words of several tokens, words that do not fit, and the pipeline of Transformers as a peer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.normalizers import BertNormalizer

from support.cases import CASES
from support.saved import peer, saved
from tunesmith.errors import ModelError
from tunesmith.evaluation.predictor import Predictor
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Preprocessing
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.tasks.token_classification import IGNORED, TokenClassification

pytestmark = pytest.mark.unit

TASK = TokenClassification()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, str]:
    return saved(CASES["token"], tmp_path_factory.mktemp("token"))


def test_the_pipeline_of_transformers_agrees(made: tuple[Predictor, str]) -> None:
    predictor, folder = made
    rows = CASES["token"].rows(10)
    theirs = peer(TASK.pipeline, folder, ignore_labels=[])
    for answer, row in zip(predictor.predict([{"tokens": row["tokens"]} for row in rows]), rows, strict=True):
        said = theirs(" ".join(row["tokens"]))
        assert answer["tags"] == [one["entity"] for one in said]
        np.testing.assert_allclose(answer["scores"], [one["score"] for one in said], atol=1e-4)


def pieces(made: tuple[Predictor, str], **state: object) -> Preprocessing:
    """A tokenizer that parts words at hyphens: ``word1-word2`` is three tokens."""
    old = made[0].preprocessing
    return Preprocessing({**old.state, **state}, old.processor)


def test_a_word_is_tagged_by_its_first_token(made: tuple[Predictor, str]) -> None:
    preprocessing = pieces(made)
    example = {"tokens": ["word1", "word2-word3", "word4"], "tags": ["O", "B-X", "B-Y"]}
    (features,) = TASK.encode([example], preprocessing)
    assert (features.length, features.count) == (7, 3)
    assert np.asarray(features.values["starts"]).tolist() == [1, 2, 5]
    batch = TASK.collate([features], preprocessing)
    index = {label: i for i, label in enumerate(preprocessing.state["labels"])}
    assert batch["labels"].tolist() == [[IGNORED, index["O"], index["B-X"], IGNORED, IGNORED, index["B-Y"], IGNORED]]


def test_words_that_do_not_fit_bring_no_loss_and_count_as_wrong(made: tuple[Predictor, str]) -> None:
    preprocessing = pieces(made, max_length=4)
    example = {"tokens": ["word1", "word2", "word3", "word4"], "tags": ["O", "B-X", "B-Y", "O"]}
    (features,) = TASK.encode([example], preprocessing)
    assert features.count == 2
    predictor = Predictor(TASK, made[0].model, preprocessing, device="cpu")
    (answer,) = predictor.forward([features])
    assert len(answer["tags"]) == len(answer["scores"]) == len(answer["losses"]) == 2
    record = TASK.score(answer, example, preprocessing.state)
    assert record["truncated"] == 2
    assert record["prediction"] == [*answer["tags"], "O", "O"]
    assert record["loss"] == pytest.approx(sum(answer["losses"]))


@pytest.mark.parametrize("blank", ["", "\u200b", "\x07"])
def test_a_word_without_tokens_keeps_its_place(made: tuple[Predictor, str], blank: str) -> None:
    old = made[0].preprocessing
    normal = copy.deepcopy(old.processor)
    normal.backend_tokenizer.normalizer = BertNormalizer()
    preprocessing = Preprocessing(old.state, normal)
    unknown = {"tokens": ["word1", "[UNK]", "word2", "[UNK]"], "tags": ["O", "O", "B-X", "O"]}
    example = {**unknown, "tokens": ["word1", blank, "word2", blank]}
    features, same, alone = TASK.encode([example, unknown, {"tokens": [blank]}], preprocessing)
    for name, values in features.values.items():
        assert np.asarray(values).tolist() == np.asarray(same.values[name]).tolist(), name
    assert (features.count, alone.count) == (4, 1)
    predictor = Predictor(TASK, made[0].model, preprocessing, device="cpu")
    (answer,) = predictor.predict([example])
    assert len(answer["tags"]) == 4
    assert answer == predictor.predict([unknown])[0]
    perfect = {**answer, "tags": example["tags"]}
    assert TASK.score(perfect, example, old.state)["correct"]


def test_words_that_are_cut_off_do_not_count_as_words_without_tokens(made: tuple[Predictor, str]) -> None:
    example = {"tokens": ["word1", "", "word2", "", "word4", ""], "tags": ["O"] * 6}
    (features,) = TASK.encode([example], pieces(made, max_length=5))
    assert features.count == 3
    (full,) = TASK.encode([example], pieces(made, max_length=8))
    assert (full.count, full.length) == (6, 8)


def test_a_tokenizer_over_bytes_has_a_token_for_every_word_too(made: tuple[Predictor, str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    make: Any = PreTrainedTokenizerFast  # untyped
    preprocessing = Preprocessing(made[0].preprocessing.state, make(tokenizer_object=tokenizer))
    (features,) = TASK.encode([{"tokens": ["a", "", "b"], "tags": ["O", "O", "B-X"]}], preprocessing)
    assert features.count == len(np.asarray(features.values["tags"])) == 3


def test_the_loss_is_torchs_over_first_tokens(made: tuple[Predictor, str]) -> None:
    predictor, _ = made
    rows = CASES["token"].rows(5)
    batch = TASK.collate(TASK.encode(rows, predictor.preprocessing), predictor.preprocessing)
    with torch.no_grad():
        loss, count = TASK.loss(predictor.model, batch, CrossEntropy())
        logits = predictor.model(**{k: v for k, v in batch.items() if k not in ("labels", "starts")}).logits
        answers = TASK.answers(predictor.model, batch, predictor.preprocessing)
    wanted = torch.nn.CrossEntropyLoss()(logits.flatten(0, 1), batch["labels"].flatten())
    assert float(loss) / count == pytest.approx(float(wanted), rel=1e-5)
    assert count == sum(len(row["tokens"]) for row in rows)
    assert sum(sum(answer["losses"]) for answer in answers) == pytest.approx(float(loss), rel=1e-4)


def test_text_is_split_at_spaces_and_lists_may_be_json() -> None:
    assert TASK.check({"tokens": "a b", "tags": "O O"}) is None
    assert TASK.check({"tokens": '["a", "b"]', "tags": '["O", "O"]'}) is None
    assert TASK.check({"tokens": "a b", "tags": "O"}) == "2 words but 1 tags"


def test_a_tokenizer_that_does_not_know_words_is_refused(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert not AutoTokenizer.from_pretrained(tmp_path).is_fast
    values = {"task": TASK.name, "model": {"model_name_or_path": str(tmp_path)}, "data": {"train": "a.jsonl"}}
    with pytest.raises(ModelError, match=r"ByT5Tokenizer .* does not tell which word a token is of"):
        TASK.load_processor(Recipe.from_dict(values, check_paths=False))


def test_tags_without_entities_are_judged_one_by_one(made: tuple[Predictor, str]) -> None:
    import pyarrow as pa

    state = {"labels": ["NOUN", "VERB"], "max_length": 64}
    example = {"tokens": ["a", "b"], "tags": ["NOUN", "VERB"]}
    answers = [{"tags": ["NOUN", "NOUN"], "scores": [0.5, 0.5], "losses": [0.1, 0.2]}] * 2
    records = pa.Table.from_pylist([TASK.score(answer, example, state) for answer in answers])
    metrics = TASK.aggregate(records, state)
    assert metrics["token_accuracy"] == 0.5
    assert metrics["f1"] == pytest.approx(0.5)
    assert metrics["loss"] == pytest.approx(0.15)
