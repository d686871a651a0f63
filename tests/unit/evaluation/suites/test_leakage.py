"""Judged rows that stand in the training data are found, exactly and nearly, and what they add to the accuracy is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from support.bench import Ruled, bench
from support.data import texts
from tunesmith.evaluation.evaluate import evaluate_run, own_data
from tunesmith.evaluation.results import Evaluation
from tunesmith.evaluation.suites.leakage import leakage
from tunesmith.report import suites
from tunesmith.runs import Run
from tunesmith.tasks import load_task

pytestmark = pytest.mark.unit


def judged(run: Run, rows: list[dict[str, str]], folder: Path) -> Evaluation:
    place = folder / "given.jsonl"
    place.write_text("\n".join(json.dumps(row) for row in rows))
    settings = run.recipe.override("evaluation.suites=[leakage]", "evaluation.slices=[]", check_paths=False).evaluation
    return evaluate_run(run, data=str(place), settings=settings)


def test_copies_of_training_rows_are_found_and_shown(text_run: Run, tmp_path: Path) -> None:
    train = own_data(text_run, load_task("text-classification"), None).splits["train"].examples()
    long = [row for row in train if len(row["text"].split()) > 8]
    exact = [{**row, "text": f"  {row['text']} "} for row in long[:6]]
    near = [{**row, "text": row["text"].capitalize() + "!"} for row in long[6:10]]
    fresh = [row for row in texts(200, seed=77) if len(row["text"].split()) > 8][:30]
    found = judged(text_run, [{k: row[k] for k in ("text", "label")} for row in (*exact, *near, *fresh)], tmp_path)
    suite = found.suites["leakage"]
    assert [round(suite.measures[name].value * 40) for name in ("overlap", "exact_overlap", "near_overlap")] == [10, 6, 4]
    rest = found.metrics["accuracy"].value - suite.measures["accuracy_gain"].value
    assert rest == pytest.approx(suite.measures["accuracy_without"].value)
    assert suite.measures["accuracy_gain"].low <= suite.measures["accuracy_gain"].value <= suite.measures["accuracy_gain"].high
    assert [one["stands"] for one in suite.examples] == ["exactly"] * 6 + ["nearly"] * 4
    assert suite.examples[0]["training row"] == long[0]["text"]
    assert "given.jsonl, row 1 = " in suite.examples[0]["places"]
    assert "10 of 40 judged rows stand in the training data, 6 exactly and 4 nearly" in suite.summary
    assert "Capitalize" not in suites.sections(found)[0].html
    assert suites.sections(found)[0].html.count("nearly</td>") == 4


def test_a_runs_own_test_rows_do_not_leak(text_run: Run) -> None:
    settings = text_run.recipe.override("evaluation.suites=[leakage]", check_paths=False).evaluation
    found = evaluate_run(text_run, split="test", settings=settings).suites["leakage"]
    assert found.measures["exact_overlap"].value == 0
    assert found.measures["overlap"].high < 0.2
    assert "accuracy_gain" not in found.measures or found.measures["overlap"].value > 0


def test_what_cannot_be_compared_says_why(text_run: Run) -> None:
    settings = text_run.recipe.override("evaluation.suites=[leakage]", check_paths=False).evaluation
    itself = evaluate_run(text_run, split="train", settings=settings).suites["leakage"]
    assert itself.skipped == "the judged rows are the training rows themselves"
    rows = [{"text": "one two", "label": "low"}, {"text": "two", "label": "high"}]
    foreign = bench(Ruled(lambda one: "low", ["high", "low"]), rows)
    assert "nothing is known of what ruled was trained on" in leakage(dataclasses.replace(foreign, run=None)).skipped


def test_only_copies_leave_nothing_to_judge_by(text_run: Run, tmp_path: Path) -> None:
    train = own_data(text_run, load_task("text-classification"), None).splits["train"].examples()
    found = judged(text_run, [{k: row[k] for k in ("text", "label")} for row in train[:12]], tmp_path).suites["leakage"]
    assert found.measures["overlap"].value == 1
    assert "accuracy_gain" not in found.measures
    assert "There are no others to judge by" in found.summary
