"""What the model knew before is judged before, during and after, and a ceiling stops training or chooses the checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.data import MemorySplit, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.training.fit import FitContext, FitData, FitResult, FitSpec, fit, validate
from tunesmith.training.spec import OldData

ROWS = texts(80)
TURNED = [{**row, "label": {"low": "high", "high": "low"}[row["label"]]} for row in texts(40, seed=6)]
"""Old rows that say the opposite of the new ones: whatever is learned is lost of them."""


def watching(tmp_path: Path, by: Any = "score", retention: dict[str, Any] | None = None) -> tuple[FitSpec, FitData]:
    base = tiny_bert(tmp_path / "base", spread=0.2, labels=["high", "low"])
    settings = {"learning_rate": 3e-3, "num_train_epochs": 4, "logging_steps": 1, "batching": "fixed"}
    recipe = recipe_for("text-classification", base, tmp_path / "a", metric_for_best_model="accuracy", **settings)
    section = recipe.evaluation.retention.model_copy(update=retention or {})
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"retention": section})})
    spec, data = prepare_in_memory(recipe, ROWS)
    old = OldData(MemorySplit(spec.task, TURNED, spec.preprocessing), by)
    return spec, dataclasses.replace(data, retention={"turned": old})


def lines(result: FitResult, kind: str = "retention") -> list[dict[str, Any]]:
    return [event for event in result.history if event["kind"] == kind]


def test_it_is_judged_before_and_at_every_evaluation(tmp_path: Path) -> None:
    spec, data = watching(tmp_path)
    result = fit(spec, data)
    told = lines(result)
    assert [line["step"] for line in told] == [0, *(event["step"] for event in lines(result, "eval"))]
    assert {line["split"] for line in told} == {"retention/turned"}
    base = spec.task.load_base(spec.recipe, spec.preprocessing.state)
    assert base is not None
    old = data.retention["turned"].split
    assert told[0]["accuracy"] == validate(spec, base, old, FitContext())["accuracy"]
    assert told[-1]["accuracy"] == validate(spec, result.model, old, FitContext())["accuracy"]
    assert told[-1]["drop"] == pytest.approx(told[0]["accuracy"] - told[-1]["accuracy"])
    assert told[-1]["drop"] > 0.1, "the rows were made to be forgotten"


def test_drift_begins_at_one_and_falls(tmp_path: Path) -> None:
    spec, data = watching(tmp_path, "drift")
    told = lines(fit(spec, data))
    assert told[0]["cka"] == pytest.approx(1.0)
    assert 0 < told[-1]["cka"] < 0.999
    assert told[-1]["drop"] == pytest.approx(1 - told[-1]["cka"])


def test_the_ceiling_stops_training_and_says_why(tmp_path: Path) -> None:
    spec, data = watching(tmp_path, retention={"max_drop": 0.06})
    scores: list[float] = []
    result = fit(spec, data, FitContext(report=lambda metrics, _: scores.append(metrics["score"])))
    told = lines(result)
    assert told[-1]["drop"] > 0.06
    assert all(line["drop"] <= 0.06 for line in told[:-1])
    assert result.place.step < 32
    assert "retention/turned is" in result.place.stopped_by
    assert "the ceiling is 0.06" in result.history[-1]["stopped_by"]
    assert scores[-1] < -1e11, "no checkpoint beyond the ceiling is chosen"


def test_or_it_only_chooses_the_checkpoint(tmp_path: Path) -> None:
    spec, data = watching(tmp_path, retention={"max_drop": 0.06, "choose": True})
    scores: list[float] = []
    result = fit(spec, data, FitContext(report=lambda metrics, _: scores.append(metrics["score"])))
    drops = [line["drop"] for line in lines(result)[1:]]
    assert result.place.step == 4 * 8
    assert not result.place.stopped_by
    assert [score < -1e11 for score in scores] == [drop > 0.06 for drop in drops]
    beyond = sorted((drop, score) for drop, score in zip(drops, scores, strict=True) if drop > 0.06)
    assert [score for _, score in beyond] == sorted((score for _, score in beyond), reverse=True), "the least drop first"


def test_large_sets_are_sampled_the_same_each_time(tmp_path: Path) -> None:
    spec, data = watching(tmp_path, retention={"max_samples": 10})
    tenths = [10 * line["accuracy"] for line in lines(fit(spec, data))]
    assert tenths == pytest.approx([round(value) for value in tenths])
    assert len(tenths) == 5


def test_the_gap_is_validation_minus_training_loss(tmp_path: Path) -> None:
    spec, data = watching(tmp_path)
    result = fit(spec, data)
    steps = lines(result, "step")
    for epoch, line in enumerate(lines(result, "eval")):
        losses = [step["loss"] for step in steps[8 * epoch : 8 * epoch + 8]]
        assert line["loss"] - line["gap"] == pytest.approx(np.mean(losses), abs=1e-6)
