"""The report and the terminal say what data care found, and what was done."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tunesmith import storage
from tunesmith.evaluation.results import Evaluation
from tunesmith.report.care import section, summary
from tunesmith.runs import Run

pytestmark = pytest.mark.unit
Judged = tuple[Run, Evaluation]
EVIL = "<script>alert(1)</script>"


def card(text: str, row: int) -> dict[str, Any]:
    return {"split": "train", "file": f"{text}.csv", "row": row, "input": text, "target": text}


def finding(rows: int, **more: Any) -> dict[str, Any]:
    pair = {**card(EVIL, 2), "of": card("first", 1)}
    entry = {"action": "report", "rows": rows, "groups": rows, "left_out": 0, "by_split": {"train": rows}}
    return {**entry, "examples": [pair] if rows else [], **more}


CARE: dict[str, Any] = {
    "duplicates": finding(12, action="drop", left_out=12),
    "near_duplicates": finding(1, looked_for={"done": True}),
    "conflicts": finding(3),
    "texts": {"untidy": {"train": 4}, "normalized": False},
    "leakage": {
        "action": "auto",
        "given": {"test": {"exact": 0, "near": 2, "left_out": 0, "moved": 0, "examples": {"exactly": [], "nearly": []}}},
        "made": {"validation": {"exact": 0, "near": 0, "left_out": 0, "moved": 0, "examples": {"exactly": [], "nearly": []}}},
        "kept_together": 24,
        "parted": 0,
    },
    "label_errors": {
        "action": "report",
        "applied": True,
        "audited": 500,
        "suspects": 1,
        "left_out": 0,
        "examples": [{**card(EVIL, 9), "suggested": "other", "score": 0.012}],
    },
    "missing": 5,
}


@pytest.fixture
def page(judged: Judged) -> Any:
    """Renders the section for a care entry."""
    run, found = judged
    stored = Path(run.file("data/report.json"))
    before = stored.read_text()

    def render(care: dict[str, Any] | None) -> str | None:
        values = storage.read_json(str(stored))
        storage.write_json(
            stored, {**values, "care": care} if care is not None else {k: v for k, v in values.items() if k != "care"}
        )
        made = section(run, found)
        return str(made.html) if made else None

    yield render
    stored.write_text(before)


def test_near_copies_that_were_left_out_are_not_called_moved(page: Any) -> None:
    care = copy.deepcopy(CARE)
    care["leakage"]["given"]["test"] |= {"exact": 1, "near": 2, "left_out": 3}
    text = page(care)
    assert "1 rows left the evaluation" in text
    assert "2 rows left the evaluation" in text
    assert "moved to train" not in text


def test_the_section_shows_what_was_found_and_done(page: Any) -> None:
    text = page(CARE)
    for words in ("Exact duplicates", "left out: 12 rows", "12 in train", "Conflicting labels", "2 in test", "Near leaks"):
        assert words in text
    for words in ("24 rows with copies kept on one side", "Untidy texts", "Missing values", "Labels to look at", "other"):
        assert words in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_what_was_not_looked_for_is_said(page: Any) -> None:
    care = copy.deepcopy(CARE)
    care["near_duplicates"] = finding(0, looked_for={"done": False, "why": "too many"})
    care["leakage"] |= {"action": "off", "given": {}, "made": {}}
    care["label_errors"] = {"action": "report", "applied": False, "why": "no classes", "examples": []}
    text = page(care)
    for words in ("not looked for: too many", "data.leakage is off", "not looked for: no classes"):
        assert words in text


KNOWN: dict[str, Any] = {
    "near-duplicate": {"planted": 20, "looked_at": 20, "found": 17, "by_mistake": 0, "precision": 1.0, "recall": 0.85},
    "mislabelled": {
        "planted": 35,
        "looked_at": 20,
        "found": 16,
        "by_mistake": 4,
        "precision": 0.8,
        "recall": 0.8,
        "in_first_2k": 0.75,
    },
    "leak": {"planted": 2, "looked_at": 0, "found": None, "by_mistake": None, "precision": None, "recall": None},
    "conflict": {"planted": 1, "looked_at": 1, "found": 0, "by_mistake": 0, "precision": None, "recall": 0.0},
}


def test_known_faults_are_counted_in_a_table_and_in_a_line(page: Any) -> None:
    text = page({**CARE, "known_faults": KNOWN})
    for words in (
        "Known faults",
        "Near duplicates",
        "85.0\u202f%",
        "75.0\u202f% among the first 40 suspects",
        "not looked for",
    ):
        assert words in text
    assert "Known faults" not in page(CARE)
    assert summary({**CARE, "known_faults": KNOWN})[-1] == (
        "known faults: 17 of 20 near duplicates found, 16 of 20 wrong labels (and 4 other rows), leaks not looked for, "
        "0 of 1 conflicting rows"
    )


def test_a_real_run_has_the_section_and_an_old_one_has_not(judged: Judged, page: Any) -> None:
    made = section(*judged)
    assert made is not None
    assert made.title == "Data care"
    assert page(None) is None


def test_the_terminal_says_it_in_a_line() -> None:
    assert summary(CARE) == [
        "data: 12 exact duplicates (left out), 1 near duplicate, 3 rows with conflicting labels, 0 leaks and 2 near ones",
        "data: 1 of 500 labels look wrong",
    ]
    care = copy.deepcopy(CARE)
    care["leakage"]["parted"] = 90
    care["label_errors"] |= {"applied": False, "why": "rows have lists of labels"}
    assert summary(care)[1:] == [
        "data: 90 rows of a common template: only exact copies are kept on one side of the split",
        "data: labels were not audited: rows have lists of labels",
    ]
    assert summary({}) == []


def test_rows_on_the_side_of_train_are_told(page: Any) -> None:
    care = copy.deepcopy(CARE)
    says = "have a 'patient' that stands in data.train too (2 of 5: 'p3', 'p4')"
    care["leakage"]["sides"] = {"test": {"by": "group", "rows": 3, "untold": 1, "left_out": 3, "says": says}}
    text = page(care)
    for words in ("Groups on both sides", "3 in test have a", "3 rows left the evaluation; 1 row cannot be told"):
        assert words in text
    assert f"data: 3 rows of test {says}" in summary(care)
