"""The metrics against scikit-learn and seqeval, and the promises about weights."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from tunesmith.tasks import metrics

LABELS = ["cat", "dog", "eel", "fox"]


def softmax_data(n: int, classes: int, seed: int, rounded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[gold]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if rounded:
        p = np.round(p, 1) + 0.01
        p /= p.sum(axis=1, keepdims=True)
    return gold, p


def multi_data(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.random((n, classes)) < 0.4
    gold[0], gold[1] = True, False
    p = 1 / (1 + np.exp(-(rng.normal(size=(n, classes)) + 1.5 * (gold - 0.5))))
    return gold, np.round(p, 2)


def same(found: dict[str, Any], wanted: dict[str, float]) -> None:
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct scores", "tied scores"])
@pytest.mark.parametrize("weighted", [False, True])
def test_single_label_metrics_are_those_of_scikit_learn(rounded: bool, weighted: bool) -> None:
    gold, p = softmax_data(300, 4, seed=1, rounded=rounded)
    weights = np.random.default_rng(2).integers(1, 4, 300) if weighted else None
    guess = p.argmax(axis=1)
    one_hot = np.eye(4)[gold]
    wanted = {
        "accuracy": oracle.accuracy_score(gold, guess, sample_weight=weights),
        "balanced_accuracy": oracle.balanced_accuracy_score(gold, guess, sample_weight=weights),
        "mcc": oracle.matthews_corrcoef(gold, guess, sample_weight=weights),
        "log_loss": oracle.log_loss(gold, p, sample_weight=weights),
        "brier": oracle.brier_score_loss(gold, p, sample_weight=weights, labels=range(4), scale_by_half=False),
        "roc_auc": oracle.roc_auc_score(one_hot, p, average="macro", sample_weight=weights),
        "pr_auc": oracle.average_precision_score(one_hot, p, average="macro", sample_weight=weights),
    }
    for average in ("macro", "weighted"):
        values = oracle.precision_recall_fscore_support(gold, guess, average=average, sample_weight=weights)
        wanted |= {f"{name}_{average}": value for name, value in zip(("precision", "recall", "f1"), values, strict=False)}
    each = oracle.precision_recall_fscore_support(gold, guess, average=None, sample_weight=weights)
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        wanted |= {f"{name}/{label}": value for label, value in zip(LABELS, values, strict=True)}
    same(metrics.single_label(gold, p, LABELS, weights), wanted)


def test_of_two_classes_the_last_is_the_positive_one() -> None:
    gold, p = softmax_data(200, 2, seed=3)
    found = metrics.single_label(gold, p, ["no", "yes"])
    same(found, {"roc_auc": oracle.roc_auc_score(gold, p[:, 1]), "pr_auc": oracle.average_precision_score(gold, p[:, 1])})
    assert found["log_loss"] == pytest.approx(oracle.log_loss(gold, p))


def test_multi_label_metrics_are_those_of_scikit_learn() -> None:
    gold, p = multi_data(250, 4, seed=4)
    weights = np.random.default_rng(5).integers(1, 4, 250)
    guess = p >= 0.5
    wanted = {
        "accuracy": oracle.accuracy_score(gold, guess, sample_weight=weights),
        "hamming_loss": oracle.hamming_loss(gold, guess, sample_weight=weights),
        "roc_auc": oracle.roc_auc_score(gold, p, average="macro", sample_weight=weights),
        "pr_auc": oracle.average_precision_score(gold, p, average="macro", sample_weight=weights),
        "log_loss": np.mean([oracle.log_loss(gold[:, k], p[:, k], sample_weight=weights) for k in range(4)]),
        "brier": np.mean([oracle.brier_score_loss(gold[:, k], p[:, k], sample_weight=weights) for k in range(4)]),
        "f1_samples": oracle.f1_score(gold, guess, average="samples", sample_weight=weights, zero_division=0.0),
    }
    for average in ("micro", "macro", "weighted"):
        values = oracle.precision_recall_fscore_support(gold, guess, average=average, sample_weight=weights)
        wanted |= {f"{name}_{average}": value for name, value in zip(("precision", "recall", "f1"), values, strict=False)}
    each = oracle.f1_score(gold, guess, average=None, sample_weight=weights)
    wanted |= {f"f1/{label}": value for label, value in zip(LABELS, each, strict=True)}
    same(metrics.multi_label(gold, p, LABELS, weights), wanted)


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_share() -> None:
    gold = np.array([0, 0, 1, 0])
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    assert metrics.single_label(gold, p, ["a", "b"])["ece"] == pytest.approx(3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.4)
    sure = np.array([[1.0, 0.0]] * 4)
    assert metrics.single_label(np.zeros(4, int), sure, ["a", "b"])["ece"] == 0


def test_an_absent_class_is_undefined_and_leaves_the_averages() -> None:
    gold = np.array([0, 0, 1, 1])
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]])
    found = metrics.single_label(gold, p, ["a", "b", "never"])
    assert np.isnan([found["recall/never"], found["precision/never"], found["f1/never"]]).all()
    assert found["support/never"] == 0
    assert found["f1_macro"] == pytest.approx(oracle.f1_score(gold, p.argmax(1), average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert np.isfinite(found["roc_auc"])


def test_a_class_that_is_only_predicted_counts_as_0_in_the_macro_average() -> None:
    gold, p = np.array([0, 0, 1]), np.array([[0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    found = metrics.single_label(gold, p, ["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = oracle.precision_recall_fscore_support(gold, p.argmax(1), average="macro")
    assert [found["precision_macro"], found["recall_macro"], found["f1_macro"]] == pytest.approx(list(wanted[:3]))


def test_one_class_only_has_no_area_under_a_curve() -> None:
    found = metrics.single_label(np.zeros(3, int), np.full((3, 2), 0.5), ["a", "b"])
    assert np.isnan(found["roc_auc"])
    assert found["accuracy"] == 1


def test_no_records_give_nan_not_an_error() -> None:
    found = metrics.single_label(np.zeros(0, int), np.zeros((0, 3)), ["a", "b", "c"])
    assert np.isnan(found["accuracy"])
    assert found["support/a"] == 0
    assert np.isnan(metrics.multi_label(np.zeros((0, 2), bool), np.zeros((0, 2)), ["a", "b"])["f1_macro"])
    assert np.isnan(metrics.tagging([], [], ["B-A", "I-A", "O"])["token_accuracy"])


def test_a_certain_mistake_has_a_finite_log_loss() -> None:
    found = metrics.single_label(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ["a", "b"])
    assert np.isfinite(found["log_loss"])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), kind=st.sampled_from(["single", "tied", "multi"]))
def test_a_weight_is_a_repetition(seed: int, n: int, kind: str) -> None:
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n))
    gold, p = multi_data(n, 4, seed) if kind == "multi" else softmax_data(n, 4, seed, rounded=kind == "tied")
    judge = metrics.multi_label if kind == "multi" else metrics.single_label
    same(judge(gold, p, LABELS, weights), judge(np.repeat(gold, weights, axis=0), np.repeat(p, weights, axis=0), LABELS))


@pytest.mark.parametrize("kind", ["single", "multi", "tagging"])
def test_many_resamples_at_once_are_the_same_as_one_by_one(kind: str) -> None:
    n = 40
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=7)
    if kind == "tagging":
        gold, said = sentences(n, 1), sentences(n, 2)

        def judge(w: np.ndarray) -> dict[str, Any]:
            return metrics.tagging(gold, said, TAGS, w)
    else:
        data = multi_data(n, 4, 6) if kind == "multi" else softmax_data(n, 4, 6)

        def judge(w: np.ndarray) -> dict[str, Any]:
            return (metrics.multi_label if kind == "multi" else metrics.single_label)(*data, LABELS, w)

    together = judge(weights)
    for row in range(7):
        same(judge(weights[row]), {name: values[row] for name, values in together.items()})


def test_a_thousand_resamples_of_5000_records_and_10_classes_take_seconds() -> None:
    gold, p = softmax_data(5000, 10, seed=7)
    weights = np.random.default_rng(8).multinomial(5000, np.full(5000, 1 / 5000), size=200)
    start = time.perf_counter()
    metrics.single_label(gold, p, [str(k) for k in range(10)], weights)
    assert time.perf_counter() - start < 6, "a fifth of the resamples"


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG"]


def sentences(n: int, seed: int, tags: list[str] = TAGS) -> list[list[str]]:
    """Random tag sequences; those of one seed have the lengths of every other."""
    lengths, rng = np.random.default_rng(99).integers(1, 12, n), np.random.default_rng(seed)
    return [[str(tag) for tag in rng.choice(tags, length)] for length in lengths]


@pytest.mark.parametrize("tags", [TAGS, [*TAGS, "E-PER", "S-LOC", "I-MISC"]], ids=["IOB", "IOBES and loose I-"])
def test_entity_metrics_are_those_of_seqeval(tags: list[str]) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    gold, said = sentences(200, 1, tags), sentences(200, 2, tags)
    gold[::3] = said[::3]
    found = metrics.tagging(gold, said, tags)
    report = seqeval.classification_report(gold, said, output_dict=True, zero_division=0)
    for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert found[name] == pytest.approx(report["micro avg"][key])
        assert found[f"{name}_macro"] == pytest.approx(report["macro avg"][key])
        assert found[f"{name}_weighted"] == pytest.approx(report["weighted avg"][key])
        assert found[f"{name}/PER"] == pytest.approx(report["PER"][key])
    assert found["support/LOC"] == report["LOC"]["support"]
    assert found["token_accuracy"] == pytest.approx(seqeval.accuracy_score(gold, said))


def test_tags_without_a_prefix_are_judged_token_by_token() -> None:
    tags = ["NOUN", "VERB", "ADJ"]
    gold, said = sentences(50, 3, tags), sentences(50, 4, tags)
    found = metrics.tagging(gold, said, tags)
    flat_gold, flat_said = [t for row in gold for t in row], [t for row in said for t in row]
    values = oracle.precision_recall_fscore_support(flat_gold, flat_said, labels=tags, average=None)
    assert [found[f"f1/{tag}"] for tag in tags] == pytest.approx(list(values[2]))
    assert found["f1"] == pytest.approx(found["token_accuracy"])


def test_all_outside_is_right_but_finds_nothing() -> None:
    found = metrics.tagging([["O", "B-PER"]], [["O", "O"]], TAGS)
    assert (found["f1"], found["precision"], found["recall"], found["token_accuracy"]) == (0, 0, 0, 0.5)
    assert np.isnan(found["precision/PER"])


def test_the_direction_of_a_metric_is_known_by_its_name() -> None:
    assert all(metrics.greater_is_better(name) for name in ("accuracy", "f1/loss", "mcc"))
    assert not any(metrics.greater_is_better(name) for name in ("loss", "eval_loss", "hamming_loss", "ece", "brier"))


def test_a_metric_without_a_vectorised_form_is_asked_row_by_row() -> None:
    weights = np.array([[1, 1], [2, 0]])
    found = metrics.per_resample(lambda w: {"sum": float(w @ np.array([1.0, 10.0]))}, weights, 2)
    assert found["sum"].tolist() == [11, 2]


def test_a_record_without_a_predicted_class_is_wrong_and_of_no_class() -> None:
    gold, p = softmax_data(60, 4, seed=3)
    p[::7] = 0
    found = metrics.single_label(gold, p, LABELS)
    said = np.where((p == 0).all(axis=1), 4, p.argmax(axis=1))
    known: dict[str, Any] = {"labels": range(4), "average": "macro", "zero_division": 0}
    wanted = {
        "accuracy": oracle.accuracy_score(gold, said),
        "balanced_accuracy": oracle.recall_score(gold, said, **known),
        "precision_macro": oracle.precision_score(gold, said, **known),
        "f1_macro": oracle.f1_score(gold, said, **known),
        "mcc": oracle.matthews_corrcoef(gold, said),
    }
    same(found, wanted)
    assert sum(found[f"predicted/{label}"] for label in LABELS) == (said < 4).sum()
