"""The model card is one that the Hub reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tunesmith.evaluation.results import ClassResult, Evaluation
from tunesmith.report.card import card, write_card
from tunesmith.runs import Run

Judged = tuple[Run, Evaluation]


def test_the_card_is_valid_and_its_index_has_the_measured_values(judged: Judged) -> None:
    run, found = judged
    place = write_card(run, found, "image-classification")
    loaded = ModelCard.load(place)
    results = {result.metric_type: result for result in loaded.data.eval_results or []}
    assert results["accuracy"].metric_value == pytest.approx(found.metrics["accuracy"].value, abs=1e-6)
    assert results["accuracy"].task_type == "image-classification"
    assert results["accuracy"].dataset_split == "test"
    assert loaded.data.pipeline_tag == "image-classification"
    assert loaded.data.library_name == "transformers"
    assert Path(run.file("model"), "README.md").read_text() == Path(place).read_text()


def test_it_says_what_a_user_must_know(judged: Judged) -> None:
    text = card(*judged, "image-classification")
    for part in ("## What it is for", "## Results", "## Training", "## Limits", "95 % interval", "weakest on", "only"):
        assert part in text


def test_labels_from_the_data_cannot_break_out_of_the_tables(judged: Judged) -> None:
    run, found = judged
    one = next(iter(found.per_class.values()))
    evil = dataclasses.replace(found, per_class={"a|b`\n<script>": ClassResult(one.support, one.metrics)})
    text = card(run, evil, "image-classification")
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if "a/b'" in line and line.startswith("|")]
    assert len(rows) == 1
    assert rows[0].count("|") == 6
