"""The verdict holds what was kept of the old: before, after, and their paired difference, or the drift."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from support.data import sentences, texts
from support.runs import finished_run
from tunesmith import storage
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.predictor import Predictor
from tunesmith.evaluation.results import Evaluation
from tunesmith.evaluation.retention import beyond_ceiling
from tunesmith.report import overfitting, retention
from tunesmith.runs import Run
from tunesmith.verbs.evaluate import print_verdict


def run_with(tmp_path: Path, task: str, base_labels: bool, **retained: Any) -> Run:
    made = texts(40, seed=8) if task == "text-classification" else sentences(40, seed=8)
    place = tmp_path / "old.jsonl"
    place.write_text("\n".join(json.dumps(row) for row in made))
    settings = {"bootstrap_samples": 100, "retention": {"data": {"old": str(place)}, **retained}}
    return finished_run(tmp_path, task, base_labels=base_labels, evaluation=settings)


@pytest.mark.parametrize("again", [False, True])
def test_before_and_after_are_judged_on_the_same_rows(again: bool, tmp_path: Path) -> None:
    run = run_with(tmp_path, "text-classification", True)
    found = evaluate_run(run)
    if again:
        found = Evaluation.from_json(storage.read_json(run.file("metrics.json")))
    one = found.retention["old"]
    assert (one.by, one.n, one.skipped) == ("score", 40, "")
    rows = texts(40, seed=8)
    base = Predictor.load_base(run.recipe, Predictor.load(run.file("model")).task, {"labels": ["high", "low"]})
    for predictor, side in ((Predictor.load(run.file("model")), one.after), (base, one.before)):
        assert predictor is not None
        answers = predictor.predict(rows) if predictor is not base else None
        if answers is not None:
            right = sum(answer["label"] == row["label"] for answer, row in zip(answers, rows, strict=True))
            assert side["accuracy"].value == right / 40
    difference = one.differences["accuracy"]
    assert difference.value == pytest.approx(one.after["accuracy"].value - one.before["accuracy"].value)
    assert difference.low <= difference.value <= difference.high
    assert "loss" in one.differences
    assert not any("/" in name for name in one.differences)


def test_a_set_that_is_gone_costs_its_own_result(tmp_path: Path) -> None:
    run = run_with(tmp_path, "text-classification", True)
    (tmp_path / "old.jsonl").unlink()
    found = evaluate_run(run)
    assert found.n > 0
    assert "old.jsonl" in found.retention["old"].skipped


def test_other_data_and_other_splits_are_judged_without_it(tmp_path: Path) -> None:
    run = run_with(tmp_path, "text-classification", True)
    assert evaluate_run(run, split="train").retention == {}


def test_with_a_new_head_the_drift_is_measured(tmp_path: Path) -> None:
    run = run_with(tmp_path, "token-classification", False)
    one = evaluate_run(run).retention["old"]
    assert one.by == "drift"
    assert one.cka is not None
    assert 0 < one.cka < 1
    assert one.differences == {}


def test_rows_without_targets_are_judged_by_drift(tmp_path: Path) -> None:
    run = run_with(tmp_path, "text-classification", True)
    place = tmp_path / "old.jsonl"
    place.write_text("\n".join(json.dumps({"text": row["text"]}) for row in texts(40, seed=8)))
    one = evaluate_run(run).retention["old"]
    assert (one.by, one.n) == ("drift", 40)
    assert one.cka is not None
    assert 0 < one.cka < 1


def test_the_report_tells_it_with_the_curve_of_old_against_new(tmp_path: Path) -> None:
    run = run_with(tmp_path, "text-classification", True)
    for step, accuracy in ((4, 0.9), (8, 0.8), (12, 0.7)):
        run.log_metrics({"step": step, "split": "retention/old", "f1_macro": accuracy, "drop": 1 - accuracy})
    run.update(
        stopped_by="<b>a ceiling</b>",
        wise_ft={
            "alpha": 0.5,
            "metric": "f1_macro",
            "tried": [{"alpha": 0.25}, {"alpha": 0.5}],
            "fresh": ["classifier.weight"],
        },
        calibration={
            "temperature": 1.7,
            "folded": True,
            "layer": "classifier",
            "ece": {"before": 0.2, "after": 0.05},
        },
    )
    found = evaluate_run(run)
    part = retention.section(run, found)
    assert part is not None
    text = str(part.html)
    assert "<svg" in text
    assert text.count('class="dot') == 3
    assert "&lt;b&gt;a ceiling" in text
    assert "0.5 of the fine-tuned and 0.5 of the base, chosen out of 0.25, 0.5" in text
    fit = overfitting.section(run, found)
    assert fit is not None
    assert "20.0 % before, 5.0 % after" in str(fit.html)


def beyond(tmp_path: Path, drops: dict[int, float | None], **fields: Any) -> Run:
    """A run whose kept checkpoint is that of step 8."""
    run = run_with(tmp_path, "text-classification", True, max_drop=0.05)
    for step, drop in drops.items():
        run.log_metrics({"step": step, "split": "validation", "f1_macro": 0.5})
        run.log_metrics({"step": step, "split": "retention/old", "f1_macro": 0.5, "drop": drop})
    run.update(best={"step": 8, "metric": "f1_macro", "value": 0.5}, **fields)
    return run


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ({4: 0.3, 8: 0.2}, 0.2),
        ({4: 0.3, 8: 0.05 + 1e-12}, "within"),
        ({4: 0.3, 8: -0.1}, "within"),
        ({4: 0.3, 8: None}, None),
    ],
)
def test_a_kept_model_beyond_the_ceiling_is_recorded(
    drops: dict[int, float | None], expected: float | str | None, tmp_path: Path
) -> None:
    found = beyond_ceiling(beyond(tmp_path, drops))
    if expected == "within":
        assert found is None
    else:
        assert found == {"set": "old", "drop": expected, "metric": "f1_macro", "max_drop": 0.05}


@pytest.mark.parametrize(("alpha", "expected"), [(0.25, None), (0.5, 0.4)])
def test_after_wise_ft_the_mixture_counts(alpha: float, expected: float | None, tmp_path: Path) -> None:
    tried = [{"alpha": 0.25, "value": 0.5, "drops": {"old": 0.01}}, {"alpha": 0.5, "value": 0.6, "drops": {"old": 0.4}}]
    mixed = {"alpha": alpha, "metric": "f1_macro", "tried": tried, "fresh": []}
    found = beyond_ceiling(beyond(tmp_path, {8: 0.9}, wise_ft=mixed))
    assert (found or {}).get("drop") == expected


def test_report_and_terminal_say_that_nothing_is_within_the_ceiling(tmp_path: Path) -> None:
    run = beyond(tmp_path, {4: 0.3, 8: 0.2})
    run.update(beyond_ceiling=beyond_ceiling(run))
    found = evaluate_run(run)
    part = retention.section(run, found)
    assert part is not None
    said = "old is 0.2 worse in f1_macro than before training, and evaluation.retention.max_drop is 0.05"
    assert f'<p class="warning">The kept model is beyond the retention ceiling: {said}' in str(part.html)
    terminal = io.StringIO()
    print_verdict(found, run, Console(file=terminal, width=400))
    assert "note: The kept model is beyond the retention ceiling" in terminal.getvalue()
    assert said in terminal.getvalue()


def test_a_run_without_retention_has_no_section(text_run: Run, text_evaluation: Evaluation) -> None:
    assert retention.section(text_run, text_evaluation) is None
    assert overfitting.section(text_run, text_evaluation) is None
