"""What is particular to texts: pairs, several labels, cutting long ones, and the pipeline of Transformers as a peer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.cases import CASES
from support.saved import peer, saved
from tunesmith.tasks.base import Preprocessing
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.tasks.text_classification import TextClassification

pytestmark = pytest.mark.unit

TASK = TextClassification()


def by_label(scores: list[dict[str, Any]], labels: list[str]) -> list[float]:
    found = {one["label"]: one["score"] for one in scores}
    return [found[label] for label in labels]


@pytest.mark.parametrize("name", ["text", "multi-label", "text-pair"])
def test_the_pipeline_of_transformers_agrees(name: str, tmp_path: Path) -> None:
    predictor, folder = saved(CASES[name], tmp_path)
    rows = CASES[name].rows(12)
    inputs = [{key: row[key] for key in ("text", "text_pair") if key in row} for row in rows]
    theirs = peer(TASK.pipeline, folder, top_k=None)
    labels = predictor.preprocessing.state["labels"]
    answers = predictor.predict(inputs)
    for answer, given in zip(answers, inputs, strict=True):
        said = theirs(given)
        said = said[0] if isinstance(said[0], list) else said
        np.testing.assert_allclose(answer["probabilities"], by_label(said, labels), atol=1e-4)
        if name == "multi-label":
            assert answer["labels"] == [label for label, p in zip(labels, by_label(said, labels), strict=True) if p >= 0.5]
        else:
            assert answer["label"] == max(said, key=lambda one: float(one["score"]))["label"]
    assert np.std([answer["probabilities"][0] for answer in answers]) > 0.005


def test_a_second_text_matters_and_has_its_own_type(tmp_path: Path) -> None:
    predictor, _ = saved(CASES["text-pair"], tmp_path)
    one, other = predictor.predict([{"text": "word1", "text_pair": "word2"}, {"text": "word1", "text_pair": "word40"}])
    assert one["probabilities"] != other["probabilities"]
    predictor.preprocessing.processor.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's own
    (features,) = TASK.encode([{"text": "word1 word2", "text_pair": "word3"}], predictor.preprocessing)
    assert np.asarray(features.values["token_type_ids"]).tolist() == [0, 0, 0, 0, 1, 1]


def test_long_texts_are_cut_to_the_longest_input(tmp_path: Path) -> None:
    predictor, folder = saved(CASES["text"], tmp_path, max_length=7)
    (features,) = TASK.encode([{"text": "word1 " * 50}], predictor.preprocessing)
    assert (features.length, len(features.values["input_ids"])) == (7, 7)  # type: ignore[arg-type]
    short = Preprocessing({**predictor.preprocessing.state, "max_length": 64}, predictor.preprocessing.processor)
    (features,) = TASK.encode([{"text": "word1 " * 500}], short)
    assert features.length == 64
    assert Path(folder, "tunesmith.json").exists()


def test_the_longest_input_is_what_the_model_holds(tmp_path: Path) -> None:
    predictor, _ = saved(CASES["text"], tmp_path)
    assert predictor.preprocessing.state["max_length"] == 64


def test_lists_make_it_a_task_of_several_labels(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert not TASK.collect(rows)["multi_label"]
    for value in (["x"], [], '["x", "y"]'):
        assert TASK.collect([*rows, {"text": "c", "label": value}])["multi_label"]
    assert TASK.merge([TASK.collect(rows), TASK.collect([{"text": "c", "label": ["x"]}])])["multi_label"]
    assert TASK.stratum({"label": ["b", "a"]}) == "a + b"
    assert TASK.stratum({"label": []}) is None


def test_a_class_whose_name_begins_with_a_bracket_is_one_class() -> None:
    found = TASK.collect([{"text": "a", "label": "ham"}, {"text": "b", "label": "[OTHER]"}, {"text": "c", "label": " [x"}])
    assert found == {"labels": {"[OTHER]": 1, "[x": 1, "ham": 1}, "multi_label": False, "pairs": False}


def test_label_smoothing_is_that_of_torch(tmp_path: Path) -> None:
    for name in ("text", "multi-label"):
        predictor, _ = saved(CASES[name], tmp_path / name)
        preprocessing, rows = predictor.preprocessing, CASES[name].rows(6)
        batch = TASK.collate(TASK.encode(rows, preprocessing), preprocessing)
        with torch.no_grad():
            logits = predictor.model(**{k: v for k, v in batch.items() if k != "labels"}).logits
            loss, _ = TASK.loss(predictor.model, batch, CrossEntropy(0.2))
        if name == "text":
            wanted = torch.nn.CrossEntropyLoss(label_smoothing=0.2, reduction="sum")(logits, batch["labels"])
        else:
            smooth = batch["labels"] * 0.8 + 0.1
            wanted = torch.nn.BCEWithLogitsLoss()(logits, smooth) * len(rows)
        assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_a_row_without_any_label_has_a_target_of_zeros(tmp_path: Path) -> None:
    predictor, _ = saved(CASES["multi-label"], tmp_path)
    one, other = TASK.encode([{"text": "a", "label": []}, {"text": "a", "label": ["low"]}], predictor.preprocessing)
    assert np.asarray(one.values["labels"]).tolist() == [0, 0]
    assert np.asarray(other.values["labels"]).sum() == 1
    record = TASK.score({"labels": [], "probabilities": [0.1, 0.2]}, {"label": []}, predictor.preprocessing.state)
    assert record["correct"]
    assert record["loss"] == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)


def test_a_record_holds_the_loss_of_the_right_class() -> None:
    state = {"labels": ["a", "b"], "multi_label": False}
    record = TASK.score({"label": "a", "probabilities": [0.75, 0.25]}, {"label": "b"}, state)
    assert (record["reference"], record["prediction"], record["correct"], record["confidence"]) == ("b", "a", False, 0.75)
    assert record["loss"] == pytest.approx(-np.log(0.25))
    sure = TASK.score({"label": "a", "probabilities": [1.0, 0.0]}, {"label": "b"}, state)
    assert np.isfinite(sure["loss"])


def test_the_majority_answers_with_the_shares_of_training() -> None:
    state = {"labels": ["a", "b"], "multi_label": False}
    answer = TASK.majority([{"label": "b"}, {"label": "b"}, {"label": "b"}, {"label": "a"}], state)
    assert answer == {"label": "b", "probabilities": [0.25, 0.75]}
    assert TASK.majority([], {**state, "multi_label": True}) is None


def test_features_are_small(tmp_path: Path) -> None:
    predictor, _ = saved(CASES["text"], tmp_path)
    (features,) = TASK.encode([{"text": "word1 word2", "label": "low"}], predictor.preprocessing)
    assert dataclasses.asdict(features)["length"] == 4
    assert {str(np.asarray(v).dtype) for k, v in features.values.items() if k != "labels"} == {"int32"}
    assert features.values["labels"] == predictor.preprocessing.state["labels"].index("low")
