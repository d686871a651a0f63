"""The section on uneven classes says what was there, what was done, and how the rare ones fare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.runs import finished_run
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.report.imbalance import section
from tunesmith.runs import Run

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Evaluation]:
    """A finished run with class weights."""
    folder = tmp_path_factory.mktemp("weighed")
    training = {"output_dir": str(folder / "runs"), "class_weights": "inverse", "loss": "focal"}
    run = finished_run(folder, "text-classification", training=training, evaluation={"bootstrap_samples": 100})
    return run, evaluate_run(run)


def counts(run: Run) -> dict[str, int]:
    found: dict[str, int] = json.loads(Path(run.file("data/report.json")).read_text())["imbalance"]["counts"]
    return found


def test_the_prepared_data_counts_the_classes_of_its_training_rows(weighed: tuple[Run, Evaluation]) -> None:
    stored = json.loads(Path(weighed[0].file("data/report.json")).read_text())
    assert counts(weighed[0]) == stored["splits"]["train"]["labels"]
    assert sum(counts(weighed[0]).values()) == stored["splits"]["train"]["rows"]


def test_it_says_what_was_done_with_each_weight(weighed: tuple[Run, Evaluation]) -> None:
    run, found = weighed
    made = section(run, found)
    assert made is not None
    held = counts(run)
    assert "weighs as one over its number of examples" in made.html
    assert "focal loss, gamma 2" in made.html
    assert "Weight in the loss" in made.html
    for count in held.values():
        assert f"{sum(held.values()) / len(held) / count:.3g}" in made.html
    assert "Recall on test" in made.html


def test_it_says_that_nothing_was_done(judged: tuple[Run, Evaluation]) -> None:
    made = section(*judged)
    assert made is not None
    assert "Nothing was done about it, and nothing needs to be." in made.html
    assert "Weight in the loss" not in made.html


def test_names_of_classes_are_escaped_and_high_ratios_told(judged: tuple[Run, Evaluation]) -> None:
    run, found = judged
    place = Path(run.file("data/report.json"))
    before = place.read_text()
    stored = json.loads(before)
    evil = {"<script>": 3, "common": 900}
    stored["imbalance"] |= {"counts": evil, "effective": evil, "ratio": 300.0, "absent": []}
    try:
        place.write_text(json.dumps(stored))
        made = section(run, found)
        stored["imbalance"] = None
        place.write_text(json.dumps(stored))
        assert section(run, found) is None
    finally:
        place.write_text(before)
    assert made is not None
    assert "<script>" not in made.html
    assert "300" in made.html
    assert "Nothing was done about it. The classes are uneven" in made.html


def test_a_run_on_very_uneven_classes_is_judged_with_a_word_on_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.tasks.weights.HIGH_RATIO", 1.0)
    run = finished_run(tmp_path, "text-classification", evaluation={"bootstrap_samples": 100})
    assert any("training.class_weights=effective" in text for text in evaluate_run(run).warnings)
