"""Weak slices, calibration and out-of-distribution scores find what is planted, hold the truth, and agree with scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from support.bench import Ruled, bench
from tunesmith.errors import UserError
from tunesmith.evaluation.statistics import bootstrap
from tunesmith.evaluation.suites.calibration import calibration, measures_of
from tunesmith.evaluation.suites.out_of_distribution import check, compared, out_of_distribution
from tunesmith.evaluation.suites.weak_slices import weak_slices
from tunesmith.tasks.base import Example
from tunesmith.tasks.counts import matrix


def said(example: Example) -> str:
    return str(example["text"].split()[-1])


def scans(n: int, seed: int, weak: float) -> list[dict[str, object]]:
    """Right in 90 % of the cases, but on the night shift of scanner b in ``weak`` less; two columns that mean nothing."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        scanner, shift, noise = str(rng.choice(["a", "b", "c"])), str(rng.choice(["day", "night"])), str(rng.choice(["x", "y"]))
        right = rng.random() < 0.9 - weak * (scanner == "b" and shift == "night")
        label = str(rng.choice(["no", "yes"]))
        guess = label if right else ("no" if label == "yes" else "yes")
        made.append(
            {"text": f"{k} {guess}", "label": label, "scanner": scanner, "shift": shift, "noise": noise, "size": rng.random()}
        )
    return made


def test_a_planted_slice_is_found() -> None:
    found = weak_slices(bench(Ruled(said, ["no", "yes"]), scans(1500, 0, 0.5), suites=["weak_slices"]))
    assert found.measures["found"].value >= 1
    assert next(iter(found.tables[0].rows)) == "scanner = b, shift = night"
    gap = found.tables[0].rows["scanner = b, shift = night"][2]
    assert gap is not None
    assert gap.value == pytest.approx(0.5, abs=0.1), "elsewhere minus inside"
    assert gap.low > 0.3


def test_where_nothing_is_weak_something_is_found_in_a_twentieth_of_the_cases_at_most() -> None:
    wrong = sum(
        weak_slices(bench(Ruled(said, ["no", "yes"]), scans(400, seed, 0.0))).measures["found"].value > 0 for seed in range(60)
    )
    assert wrong <= 6, "5 % of 60 is 3; more than 6 would have a chance of 3 %"


def probabilities(n: int, seed: int, sharpen: float, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Classes drawn by true probabilities, and what a model that is too sure (above 1) or unsure makes of them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (rng.random((n, 1)) < true.cumsum(1)).argmax(1)
    told = np.exp(sharpen * logits)
    return truth, told / told.sum(1, keepdims=True)


@pytest.mark.parametrize("sharpen", [1.0, 2.0])
def test_intervals_of_calibration_errors_hold_the_truth(sharpen: float) -> None:
    """In at least 90 % of 60 samples of 500; a well-calibrated model's truth is about 0."""
    names = ("ece", "ece_equal_mass", "ece_classwise")
    truth, p = probabilities(200_000, 9, sharpen)
    exact = {name: float(measures_of(truth, p, np.ones((1, len(truth))))[name][0]) for name in names}
    held = dict.fromkeys(names, 0)
    for seed in range(60):
        truth, p = probabilities(500, seed, sharpen)

        def judge(weights: object, truth: np.ndarray = truth, p: np.ndarray = p) -> dict[str, object]:
            found = measures_of(truth, p, matrix(weights, len(truth)))  # type: ignore[arg-type]
            return found if np.ndim(weights) == 2 else {name: float(value[0]) for name, value in found.items()}

        found = bootstrap(judge, 500, 200, seed)
        for name in names:
            one = found.estimate(name)
            held[name] += one.low <= exact[name] <= one.high
    assert min(held.values()) >= 54, held


def test_calibration_says_which_way_the_model_leans() -> None:
    rows = [{"text": f"{k} {'yes' if k % 5 else 'no'}", "label": "yes"} for k in range(200)]
    found = calibration(bench(Ruled(said, ["no", "yes"]), rows))
    assert found.measures["overconfidence"].value == pytest.approx(0.9 - 0.8)
    assert found.measures["ece_equal_mass"].value == pytest.approx(0.1)
    assert "surer than right" in found.summary


def test_the_area_is_scikit_learns_and_its_interval_holds_the_truth() -> None:
    rng, held = np.random.default_rng(0), 0
    for seed in range(100):
        inside, outside = rng.normal(1, 1, 80).round(1), rng.normal(0, 1, 60).round(1)
        found = compared(inside, outside, 0.95, seed)
        expected = roc_auc_score([1] * 80 + [0] * 60, np.concatenate([inside, outside]))
        assert found["auroc"].value == pytest.approx(expected)
        held += found["auroc"].low <= 0.7602 <= found["auroc"].high  # Phi(1 / sqrt 2)
        assert found["fpr95"].low <= found["fpr95"].value <= found["fpr95"].high
    assert held >= 91


def test_perfect_scores_have_an_interval_too() -> None:
    found = compared(np.ones(30), np.zeros(20), 0.95, 0)
    assert found["auroc"].value == 1
    assert found["auroc"].low < 0.9
    assert found["fpr95"].value == 0
    assert found["fpr95"].high > 0.1


class Doubting(Ruled):
    """Half sure of what is long."""

    def answer(self, example: Example) -> dict[str, object]:
        sure = 0.55 if len(example["text"]) > 20 else 0.95
        return {"label": "yes", "probabilities": [1 - sure, sure]}


def test_data_of_another_kind_is_told_by_doubt(tmp_path: Path) -> None:
    place = tmp_path / "other.jsonl"
    place.write_text("\n".join(json.dumps({"text": f"a text that is long {k}"}) for k in range(30)))
    rows = [{"text": f"{k}", "label": "yes"} for k in range(50)]
    ready = bench(Doubting(said, ["no", "yes"]), rows, out_of_distribution={"long": str(place)})
    found = out_of_distribution(ready)
    assert found.measures["long/msp_auroc"].value == 1
    assert "no energy score" in " ".join(found.notes)
    lost = bench(Doubting(said, ["no", "yes"]), rows, out_of_distribution={"long": str(tmp_path / "lost.jsonl")})
    with pytest.raises(UserError, match=r"evaluation\.out_of_distribution\.long"):
        check(lost.split, lost.target.task, lost.target.state, lost.settings)


def test_data_of_another_kind_may_call_its_columns_as_the_recipe_does(tmp_path: Path) -> None:
    place = tmp_path / "other.jsonl"
    place.write_text("\n".join(json.dumps({"body": f"a text that is long {k}", "mood": k}) for k in range(30)))
    rows = [{"text": f"{k}", "label": "yes"} for k in range(50)]
    ready = bench(Doubting(said, ["no", "yes"]), rows, out_of_distribution={"long": str(place)})
    with pytest.raises(UserError, match="no column for the role 'text'"):
        check(ready.split, ready.target.task, ready.target.state, ready.settings)
    ready.split.columns = {"text": "body", "label": "mood", "text_pair": "gone"}
    check(ready.split, ready.target.task, ready.target.state, ready.settings)
    assert out_of_distribution(ready).measures["long/msp_auroc"].value == 1


class Sure(Ruled):
    """Right, and 99 % sure of it."""

    def answer(self, example: Example) -> dict[str, object]:
        return {"label": "yes", "probabilities": [0.01, 0.99]}


def test_where_no_mistake_was_seen_calibration_errors_reach_up_to_a_shares_end() -> None:
    rows = [{"text": f"{k} yes", "label": "yes"} for k in range(50)]
    found = calibration(bench(Sure(said, ["no", "yes"]), rows)).measures
    assert found["ece"].value == pytest.approx(0.01)
    for name in ("ece", "ece_equal_mass", "brier"):
        assert found[name].high > 0.05
    assert "accuracy" not in found
