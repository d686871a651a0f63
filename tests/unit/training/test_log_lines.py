"""What a line of the log tells of training, and when there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.data import pictures, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_vit
from tunesmith.training.fit import FitContext, fit

pytestmark = pytest.mark.unit

SETTINGS: dict[str, Any] = {"max_steps": 8, "logging_steps": 5, "batching": "fixed", "eval_strategy": "no"}
SETTINGS["load_best_model_at_end"] = False


def lines(task: str, base: Path, rows: list[dict[str, Any]], folder: Path, **changes: Any) -> list[dict[str, Any]]:
    result = fit(*prepare_in_memory(recipe_for(task, base, folder, **{**SETTINGS, **changes}), rows), FitContext())
    return [event for event in result.history if event["kind"] == "step"]


def test_the_first_update_is_logged_and_the_last(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    told = lines("text-classification", base, texts(80), tmp_path / "a")
    assert [line["step"] for line in told] == [1, 5, 8]
    each = [line["loss"] for line in lines("text-classification", base, texts(80), tmp_path / "b", logging_steps=1)]
    assert told[0]["loss"] == pytest.approx(each[0])
    assert told[1]["loss"] == pytest.approx(sum(each[:5]) / 5), "the first update counts in the next line too"


@pytest.mark.parametrize(
    ("task", "base", "rows", "tokens"),
    [("text-classification", tiny_bert, texts, True), ("image-classification", tiny_vit, pictures, False)],
)
def test_speed_in_tokens_is_told_of_texts_and_peak_memory_of_all(
    task: str, base: Callable[[Path], Path], rows: Callable[[int], list[dict[str, Any]]], tokens: bool, tmp_path: Path
) -> None:
    for line in lines(task, base(tmp_path / "base"), rows(80), tmp_path / "a"):
        assert ("tokens_per_second" in line) == tokens
        if tokens:
            assert line["tokens_per_second"] > 2 * line["examples_per_second"]
        assert line["peak_memory_mb"] > 50, "Python with PyTorch takes more"
