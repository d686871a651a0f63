"""Sums of sites give the metrics of all their records together, without the records."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from support.tasks_ctc import SpeechToText
from tunesmith.evaluation.statistics import wilson
from tunesmith.tasks import load_task
from tunesmith.tasks.base import State, Task
from tunesmith_federated.checks import check_sums
from tunesmith_federated.sums import BINS, area_error, averaged, bins_of, estimates, merge, metrics, spread, sums_of

pytestmark = pytest.mark.unit

TEXTS, TAGS = load_task("text-classification"), load_task("token-classification")
SIZES = (40, 7, 153)
APPROXIMATE = {"roc_auc", "pr_auc"}


def single(n: int, classes: int, rng: np.random.Generator, sharp: float = 2.0) -> pa.Table:
    names = [f"c{k}" for k in range(classes)]
    logits = rng.normal(size=(n, classes)) * sharp
    truth = rng.integers(0, classes, n)
    logits[np.arange(n), truth] += sharp
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    state = {"labels": names}
    rows = [
        TEXTS.score({"label": names[int(row.argmax())], "probabilities": row.tolist()}, {"label": names[right]}, state)
        for row, right in zip(p, truth, strict=True)
    ]
    return pa.Table.from_pylist(rows)


def multi(n: int, classes: int, rng: np.random.Generator) -> pa.Table:
    names = [f"c{k}" for k in range(classes)]
    truth = rng.random((n, classes)) < 0.3
    p = 1 / (1 + np.exp(-(rng.normal(size=(n, classes)) + 2 * truth - 1)))
    state = {"labels": names, "multi_label": True}
    rows = []
    for row, right in zip(p, truth, strict=True):
        answer = {"labels": [names[k] for k in np.flatnonzero(row >= 0.5)], "probabilities": row.tolist()}
        rows.append(TEXTS.score(answer, {"label": [names[k] for k in np.flatnonzero(right)]}, state))
    return pa.Table.from_pylist(rows)


def tagged(n: int, labels: Sequence[str], rng: np.random.Generator) -> pa.Table:
    rows = []
    for _ in range(n):
        size = int(rng.integers(1, 9))
        right = [labels[k] for k in rng.integers(0, len(labels), size)]
        said = [tag if rng.random() < 0.7 else labels[int(rng.integers(0, len(labels)))] for tag in right]
        losses = rng.random(size).tolist()
        rows.append(
            TAGS.score(
                {"tags": said, "scores": [0.5] * size, "losses": losses},
                {"tokens": ["w"] * size, "tags": right},
                {"labels": labels},
            )
        )
    return pa.Table.from_pylist(rows)


def held_together(parts: list[pa.Table], task: Task, state: State, kind: str) -> tuple[dict[str, Any], dict[str, float]]:
    """The merged sums; every metric that is not an area is that of the pooled records."""
    told = [json.loads(json.dumps(sums_of(part, task, state))) for part in parts]
    assert {one["kind"] for one in told} == {kind}
    assert [check_sums(one, len(state["labels"])) for one in told] == [None] * len(told)
    whole = merge(told)
    assert whole["n"] == sum(len(part) for part in parts)
    wanted = task.aggregate(pa.concat_tables(parts), state)
    found = metrics(whole, task, state)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        if name not in APPROXIMATE:
            assert found[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    assert averaged(whole, found) == frozenset()
    return whole, found


@pytest.mark.parametrize("classes", [2, 5])
def test_one_class_each_is_as_over_the_pooled_records(classes: int) -> None:
    rng = np.random.default_rng(classes)
    parts = [single(n, classes, rng) for n in SIZES]
    state = {"labels": [f"c{k}" for k in range(classes)]}
    whole, found = held_together(parts, TEXTS, state, "classes")
    wanted = TEXTS.aggregate(pa.concat_tables(parts), state)
    assert abs(found["roc_auc"] - wanted["roc_auc"]) <= area_error(whole)
    assert area_error(whole) < 0.005
    assert found["pr_auc"] == pytest.approx(wanted["pr_auc"], abs=0.01)


@pytest.mark.parametrize("classes", [1, 4])
def test_any_number_of_classes_is_as_over_the_pooled_records(classes: int) -> None:
    rng = np.random.default_rng(classes)
    parts = [multi(n, classes, rng) for n in SIZES]
    held_together(parts, TEXTS, {"labels": [f"c{k}" for k in range(classes)], "multi_label": True}, "labels")


@pytest.mark.parametrize(
    "labels",
    [
        ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
        ["O", "I-PER", "I-LOC", "B-LOC"],
        ["O", "S-PER", "B-PER", "I-PER", "E-PER"],
        ["NOUN", "VERB", "ADJ"],
        ["O", "NOUN", "VERB"],
        ["B-A", "I-A"],
    ],
)
def test_tagged_words_are_as_over_the_pooled_records(labels: list[str]) -> None:
    rng = np.random.default_rng(len(labels))
    held_together([tagged(n, labels, rng) for n in SIZES], TAGS, {"labels": labels}, "tags")


def test_sites_with_one_class_add_up_too() -> None:
    rng, state = np.random.default_rng(0), {"labels": ["c0", "c1", "c2"]}
    pooled = single(60, 3, rng)
    rows = pooled.to_pylist()
    parts = [pa.Table.from_pylist([row for row in rows if row["reference"] == name]) for name in state["labels"]]
    held_together(parts, TEXTS, state, "classes")


def test_the_area_is_within_its_stated_error_of_scikit_learns() -> None:
    state = {"labels": ["c0", "c1"]}
    for seed, sharp in enumerate((0.1, 1.0, 5.0, 20.0)):
        rng = np.random.default_rng(seed)
        part = single(400, 2, rng, sharp)
        told = sums_of(part, TEXTS, state)
        scores = np.array(part["probabilities"].to_pylist())[:, 1]
        truth = np.array(part["reference"].to_pylist()) == "c1"
        assert abs(metrics(told, TEXTS, state)["roc_auc"] - roc_auc_score(truth, scores)) <= area_error(told) + 1e-12
    same = {"kind": "classes", "n": 4, "metrics": {}, "positives": [{"3": 2}], "negatives": [{"3": 2}]}
    assert area_error(same) == 0.5
    assert math.isnan(area_error({"kind": "averaged", "n": 1, "metrics": {}}))


def test_bins_are_narrow_where_trained_models_scores_are() -> None:
    assert bins_of([0.0, 1.0]).tolist() == [0, BINS - 1]
    rising = bins_of(np.sin(np.linspace(0, np.pi / 2, 100_001)) ** 2)
    assert (np.diff(rising) >= 0).all()
    assert len(np.unique(rising)) == BINS
    assert len(np.unique(bins_of(1 - np.array([1e-5, 1e-4, 1e-3, 1e-2])))) == 4


def test_any_other_task_has_means_and_says_so() -> None:
    rng = np.random.default_rng(0)
    names = ("loss", "words", "word_errors", "characters", "character_errors")
    parts = [pa.table({name: rng.integers(1, 9, n).astype(float) for name in names}) for n in (10, 30)]
    task, state = SpeechToText(), {"vocabulary": ["a"]}
    told = [sums_of(part, task, state) for part in parts]
    assert {one["kind"] for one in told} == {"averaged"}
    found = metrics(merge(told), task, state)
    each = [task.aggregate(part, state)["wer"] for part in parts]
    assert found["wer"] == pytest.approx((10 * each[0] + 30 * each[1]) / 40)
    assert averaged(merge(told), found) == {"loss", "wer", "cer"}


def test_what_does_not_fit_together_leaves_the_means() -> None:
    rng = np.random.default_rng(0)
    one = sums_of(single(20, 3, rng), TEXTS, {"labels": ["c0", "c1", "c2"]})
    other = sums_of(single(20, 4, rng), TEXTS, {"labels": [f"c{k}" for k in range(4)]})
    both = merge([one, other])
    assert both["kind"] == "averaged"
    means = [part["metrics"]["accuracy"][0] / 20 for part in (one, other)]
    assert metrics(both, TEXTS, {"labels": []})["accuracy"] == pytest.approx(np.mean(means))
    assert merge([]) == {}


def test_no_text_and_no_answer_is_in_the_sums() -> None:
    told = json.dumps(sums_of(single(50, 3, np.random.default_rng(0)), TEXTS, {"labels": ["c0", "c1", "c2"]}))
    assert "c1" not in told
    assert len(told) < 20_000


def test_the_spread_is_that_of_the_sites_that_have_the_metric() -> None:
    sites = {"a": {"accuracy": 0.5, "loss": 2.0}, "b": {"accuracy": 0.9, "loss": 1.0}, "c": {"accuracy": math.nan}, "d": {}}
    found = spread(sites, "accuracy")
    assert found is not None
    assert (found.worst_site, found.worst, found.best_site, found.best, found.sites) == ("a", 0.5, "b", 0.9, 2)
    assert found.sd == pytest.approx(np.std([0.5, 0.9], ddof=1))
    down = spread(sites, "loss")
    assert down is not None
    assert down.worst_site == "a"
    assert spread(sites, "f1") is None
    one = spread({"a": {"f1": 0.5}}, "f1")
    assert one is not None
    assert math.isnan(one.sd)


def test_shares_of_rows_have_wilsons_intervals_and_the_rest_has_none() -> None:
    state = {"labels": ["c0", "c1", "c2"]}
    told = sums_of(single(90, 3, np.random.default_rng(3)), TEXTS, state)
    found = metrics(told, TEXTS, state)
    known = estimates(found, told["n"])
    shares = {name for name, one in known.items() if one.method == "wilson"}
    assert shares == {"accuracy", *(f"{name}/c{k}" for name in ("recall", "precision") for k in range(3))}
    assert (known["accuracy"].low, known["accuracy"].high) == wilson(found["accuracy"], 90)
    assert known["recall/c1"].n == found["support/c1"]
    assert (known["f1_macro"].value, known["f1_macro"].method) == (found["f1_macro"], "none")
    assert math.isnan(known["f1_macro"].low)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"confusion": [[0, 3, 50]]}, "class 3, and there are 3"),
        ({"confusion": [[0, 0, 49]]}, "confusion has 49 rows, and n is 50"),
        ({"confusion": [[0, 0]]}, "confusion"),
        ({"positives": [{"1000": 1}] * 3}, "bin 1000"),
        ({"positives": [{"x": 1}] * 3}, "bin x"),
        ({"positives": [{"1": 51}] * 3}, "do not add up"),
        ({"negatives": [{}]}, "1 histograms"),
        ({"calibration": [[1, 0.0]]}, "calibration"),
        ({"counts": [[5, 3, 9]]}, "counts"),
        ({"metrics": {"accuracy": [1.0]}}, "metrics"),
        ({"metrics": {"accuracy": [1.0, 51]}}, "weight 51"),
        ({"metrics": {"accuracy": [1.0, 0]}}, "weight 0"),
        ({"metrics": [1]}, "metrics"),
        ({"kind": "rows"}, "kind 'rows'"),
        ({"rows": ["text"]}, "rows"),
    ],
)
def test_sums_that_would_break_the_server_are_named(change: dict[str, Any], reason: str) -> None:
    sound = sums_of(single(50, 3, np.random.default_rng(0)), TEXTS, {"labels": ["c0", "c1", "c2"]})
    assert check_sums(sound, 3) is None
    assert reason in str(check_sums({**sound, **change}, 3))
