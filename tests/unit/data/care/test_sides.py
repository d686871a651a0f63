"""Groups and time hold for given splits too: what is on the side of train is refused, counted or taken out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe

pytestmark = pytest.mark.unit

Prepare = Callable[..., PreparedData]
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath", "ivory", "jetty", "knoll", "larch", "maple")


@pytest.fixture
def run(tmp_path: Path, letters: Any, recipe: Callable[..., Recipe]) -> Prepare:
    """Prepares splits whose rows have the given values of one column, each with a text of its own; ``last`` of the last."""

    def run(
        column: str, splits: dict[str, list[Any]], split: dict[str, Any], last: str | None = None, **data: Any
    ) -> PreparedData:
        number, total = 0, sum(map(len, splits.values()))
        for name, values in splits.items():
            lines = []
            for value in values:
                number += 1
                text = " ".join(f"{WORDS[(number * 7 + step * step) % len(WORDS)]}{number * number}" for step in range(5))
                text = last if last is not None and number == total else text
                own = {} if value is None else {column: value}
                lines.append(json.dumps({"text": text, "label": "ab"[number % 2], **own}))
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        files = {name: f"{name}.jsonl" for name in splits}
        return prepare(recipe(**files, split=split, **data), letters, output_dir=str(tmp_path / "runs"))

    return run


PATIENTS = {"train": [f"p{k % 20}" for k in range(60)], "test": [f"p{k}" for k in (3, 30, 31, 4, 4, 32)]}
DAYS = {
    "train": [f"2026-01-{k % 25 + 1:02d}" for k in range(50)],
    "test": [f"2026-{day}" for day in ("01-24", "01-25", "01-26", "02-01")],
}


@pytest.mark.parametrize("split", [{"group": "patient"}, {"by": "group", "group": "patient", "validation": 0}])
def test_groups_on_both_sides_are_refused_and_named(run: Prepare, split: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        run("patient", PATIENTS, split)
    said = str(caught.value)
    assert "data.test: 3 of 6 rows have a 'patient' that stands in data.train too (2 of 5: 'p3', 'p4')" in said
    assert "test.jsonl row 1" in said
    assert "test.jsonl row 4" in said
    assert "data.leakage: move" in said


def test_rows_that_are_not_later_than_train_are_refused_and_named(run: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        run("day", DAYS, {"time": "day"})
    said = str(caught.value)
    assert "data.test: 2 of 4 rows are not later by 'day' than the last of data.train (2026-01-25, " in said
    assert "train.jsonl row 25)" in said
    assert "test.jsonl row 1; " in said
    assert "remove data.split.time" in said


@pytest.mark.parametrize(("column", "splits", "wrong"), [("patient", PATIENTS, 3), ("day", DAYS, 2)])
@pytest.mark.parametrize("leakage", ["report", "move", "off"])
def test_they_are_counted_or_leave_the_evaluation(
    run: Prepare, column: str, splits: dict[str, list[Any]], wrong: int, leakage: str
) -> None:
    way = {"patient": "group", "day": "time"}[column]
    data = run(column, splits, {way: column, "validation": 0}, leakage=leakage)
    left = data.splits["test"].rows()[column].to_pylist()
    entry = data.manifest["care"]["leakage"].get("sides")
    if leakage == "off":
        assert (len(left), entry) == (len(splits["test"]), None)
        return
    assert (entry["test"]["by"], entry["test"]["rows"]) == (way, wrong)
    assert entry["test"]["left_out"] == len(splits["test"]) - len(left) == (wrong if leakage == "move" else 0)
    assert len(data.splits["train"]) == len(splits["train"])


@pytest.mark.parametrize(
    ("column", "values"), [("day", ["2026-02-01", "2026-02-02", "2026-02-03"]), ("patient", ["p40", "p40", "p40"])]
)
def test_a_near_copy_takes_no_row_beside_it_out_of_the_evaluation(
    run: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str, values: list[str]
) -> None:
    """The last row to judge nearly stands in train: there it would bring its time or its group along."""
    learned = {"day": DAYS, "patient": PATIENTS}[column]["train"]
    way = {"patient": "group", "day": "time"}[column]
    copied = " ".join(f"{WORDS[(7 + step * step) % len(WORDS)]}1" for step in range(5)) + "!"
    data = run(column, {"train": learned, "test": values}, {way: column, "validation": 0}, leakage="move", last=copied)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": len(learned), "test": 2}
    entry = data.manifest["care"]["leakage"]
    assert (entry["given"]["test"]["left_out"], entry["given"]["test"]["moved"]) == (1, 0)
    assert entry["sides"]["test"]["rows"] == 0
    assert "1 of 3 rows of data.test stand in data.train too, exactly or nearly: 1 left out, 0 moved" in caplog.text


def test_an_evaluation_is_not_emptied(run: Prepare) -> None:
    with pytest.raises(DataError, match=r"3 of 3 rows have a 'patient'[^→]*without them none is left"):
        run("patient", {"train": PATIENTS["train"], "test": ["p1", "p2", "p3"]}, {"group": "patient"}, leakage="move")


def test_values_are_compared_whatever_their_type(run: Prepare) -> None:
    with pytest.raises(DataError, match="2 of 3 rows have a 'patient'"):
        run("patient", {"train": list(range(40)), "test": ["3", "x", "7"]}, {"group": "patient"})
    with pytest.raises(DataError, match=r"numbers in data.test and dates in data.train"):
        run("day", {"train": DAYS["train"], "test": [1, 2]}, {"time": "day"})
    with pytest.raises(DataError, match=r"1 values of the column 'day' are no times: .*test.jsonl row 2: 'soon'"):
        run("day", {"train": DAYS["train"], "test": ["2026-02-01", "soon"]}, {"time": "day"})


@pytest.mark.parametrize(("test", "untold"), [([None, None], 2), (["p30", None], 1)])
def test_rows_without_a_group_are_told(run: Prepare, caplog: pytest.LogCaptureFixture, test: list[Any], untold: int) -> None:
    data = run("patient", {"train": PATIENTS["train"], "test": test}, {"group": "patient"})
    assert data.manifest["care"]["leakage"]["sides"]["test"]["untold"] == untold
    assert (
        f"{untold} rows of data.test have no 'patient': whether their group stands in data.train cannot be told" in caplog.text
    )


def test_splits_that_keep_the_order_are_as_before(run: Prepare) -> None:
    splits = {"train": DAYS["train"], "validation": ["2026-02-01", "2026-02-02"], "test": ["2026-02-03", "2026-02-04"]}
    data = run("day", splits, {"time": "day"})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 50, "validation": 2, "test": 2}


def test_a_column_that_is_missing_is_refused_though_nothing_is_cut(run: Prepare) -> None:
    splits = {"train": PATIENTS["train"], "validation": ["p40"], "test": ["p41"]}
    with pytest.raises(DataError, match=r"data.train has no column 'patent'\n.*Did you mean 'patient'"):
        run("patient", splits, {"group": "patent"})


def test_a_group_that_is_set_prepares_anew(run: Prepare) -> None:
    splits = {**PATIENTS, "validation": ["p50"]}
    run("patient", splits, {})
    with pytest.raises(DataError, match="3 of 6 rows"):
        run("patient", splits, {"group": "patient"})
