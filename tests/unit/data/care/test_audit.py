"""The audit names planted label errors among its first suspects, drops only on request, and says where it does not apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.data import sentences
from support.planted import Words, planted_digits, read
from tunesmith.data.care import audit as audit_module
from tunesmith.data.care.audit import _folds, audit
from tunesmith.errors import DataError
from tunesmith.recipe.data import DataSection
from tunesmith.tasks import load_task

pytestmark = pytest.mark.unit


def audited(
    rows: list[dict[str, Any]], task_name: str, folder: Path, action: str = "report"
) -> tuple[np.ndarray, dict[str, Any]]:
    task = load_task(task_name)
    data = read({"train": rows}, task, folder)["train"]
    return audit(DataSection(train="x", label_errors=action), task, data, np.arange(data.count))  # type: ignore[arg-type]


def mislabelled(rows: list[dict[str, Any]], count: int, labels: list[str], seed: int = 0) -> set[int]:
    """Gives some rows another label; returns which."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(rows), count, replace=False).tolist()
    for k in chosen:
        others = [label for label in labels if label != rows[k]["label"]]
        rows[k]["label"] = str(rng.choice(others))
    return set(chosen)


def found_first(entry: dict[str, Any], planted: set[int]) -> float:
    first = [one["row"] - 1 for one in entry["examples"][: 2 * len(planted)]]
    return len(planted & set(first)) / len(planted)


@pytest.mark.parametrize("kind", ["texts", "digits"])
def test_most_planted_errors_are_among_the_first_suspects(tmp_path: Path, kind: str) -> None:
    if kind == "texts":
        words = Words(0)
        rows = [words.row() for _ in range(800)]
        labels = [f"class {k}" for k in range(4)]
    else:
        rows = planted_digits(0).train[:800]
        labels = [str(k) for k in range(10)]
    planted = mislabelled(rows, 40, labels)
    kept, entry = audited(rows, "text-classification" if kind == "texts" else "image-classification", tmp_path)
    assert len(kept) == 800
    assert (entry["applied"], entry["audited"], entry["left_out"]) == (True, 800, 0)
    assert found_first(entry, planted) >= 0.6
    assert all(one["suggested"] != one["target"] for one in entry["examples"])
    scores = [one["score"] for one in entry["examples"]]
    assert all(0 <= score <= 1 for score in scores)


def test_suspects_are_dropped_on_request(tmp_path: Path) -> None:
    words = Words(1)
    rows = [words.row() for _ in range(300)]
    mislabelled(rows, 15, [f"class {k}" for k in range(4)])
    kept, entry = audited(rows, "text-classification", tmp_path, "drop")
    assert len(kept) == 300 - entry["suspects"]
    assert entry["left_out"] == entry["suspects"] > 0
    assert not {one["row"] - 1 for one in entry["examples"]} & set(kept.tolist())


@pytest.mark.parametrize(
    ("rows", "task", "why"),
    [
        (sentences(20), "token-classification", "rows of token-classification have none"),
        (
            [{"text": f"text {k}", "label": ["a", "b"][: k % 2 + 1]} for k in range(20)],
            "text-classification",
            "lists of labels",
        ),
        ([{"text": f"text {k}", "label": '["a"]'} for k in range(20)], "text-classification", "lists of labels"),
    ],
)
def test_where_it_does_not_apply_it_says_so(tmp_path: Path, rows: list[dict[str, Any]], task: str, why: str) -> None:
    kept, entry = audited(rows, task, tmp_path)
    assert len(kept) == 20
    assert not entry["applied"]
    assert why in entry["why"]
    with pytest.raises(DataError, match=why):
        audited(rows, task, tmp_path / "drop", "drop")


@pytest.mark.parametrize("action", ["report", "drop"])
def test_of_one_class_there_is_nothing_to_drop(tmp_path: Path, action: str) -> None:
    kept, entry = audited([{"text": f"text {k}", "label": "a"} for k in range(20)], "text-classification", tmp_path, action)
    assert len(kept) == 20
    assert (entry["applied"], entry["left_out"], entry["why"]) == (False, 0, "the rows have one class only")


@pytest.mark.parametrize("action", ["report", "drop"])
@pytest.mark.parametrize("rare", [1, 3])
def test_a_rare_class_is_among_the_rows_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, rare: int
) -> None:
    monkeypatch.setattr(audit_module, "MOST_ROWS", 40)
    words = Words(1, classes=2)
    rows = [{**words.row(), "label": "b" if k < rare else "a"} for k in range(200)]
    _, entry = audited(rows, "text-classification", tmp_path, action)
    assert entry["applied"]
    assert 40 <= entry["audited"] <= 40 + rare


def test_off_looks_at_nothing(tmp_path: Path) -> None:
    _, entry = audited([{"text": "x", "label": "a"}, {"text": "y", "label": "b"}], "text-classification", tmp_path, "off")
    assert (entry["applied"], entry["why"]) == (False, "data.label_errors is off")


def test_copies_are_in_one_fold_and_classes_are_shared_out() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    keys = np.arange(300, dtype=np.uint64)
    keys[::10] = 7
    fold = _folds(labels, keys, 0)
    assert len(np.unique(fold[::10])) == 1
    single = np.ones(300, bool)
    single[::10] = False
    for kind in range(3):
        counts = np.bincount(fold[single & (labels == kind)], minlength=5)
        assert np.ptp(counts) <= 2
