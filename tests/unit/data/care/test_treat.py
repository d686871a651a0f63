"""What the recipe says is done about duplicates, conflicts and leaks; every planted fault is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.planted import cared, left_out, planted_digits, planted_texts
from tunesmith.data import key
from tunesmith.data.care import treat as module
from tunesmith.data.prepare import prepare, prepare_frozen
from tunesmith.data.prepared import PreparedData
from tunesmith.data.sources import resolve_splits
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Preprocessing

pytestmark = pytest.mark.unit

Make = Callable[..., Recipe]
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath", "ivory", "jetty", "knoll", "larch", "maple")


def sentence(k: int) -> str:
    """A text that is far from that of another number."""
    return " ".join(f"{WORDS[(k * 7 + step * step) % len(WORDS)]}{k * k}" for step in range(5))


@pytest.fixture
def run(tmp_path: Path, letters: Any, recipe: Make) -> Callable[..., PreparedData]:
    return lambda **data: prepare(recipe(**data), letters, output_dir=str(tmp_path / "runs"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, rows: list[tuple[str, str]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
        return name

    return write


def clean(count: int) -> list[tuple[str, str]]:
    return [(sentence(k), "ab"[k % 2]) for k in range(count)]


def kept(data: PreparedData) -> dict[str, list[str]]:
    return {name: [example["text"] for example in split.examples()] for name, split in data.splits.items()}


def test_by_default_duplicates_are_counted_and_stay_on_one_side(run: Any, write: Any) -> None:
    rows = clean(60) + clean(20) + [(" " + sentence(30) + " ", "a"), (sentence(31), "a")]
    data = run(train=write("a.jsonl", rows))
    care = data.manifest["care"]
    assert sum(len(split) for split in data.splits.values()) == 82
    assert (care["duplicates"]["rows"], care["duplicates"]["left_out"]) == (21, 0)
    assert (care["conflicts"]["rows"], care["conflicts"]["groups"]) == (2, 1)
    assert care["texts"] == {"untidy": {"train": 1}, "normalized": False}
    sides = [{text.strip() for text in texts} for texts in kept(data).values()]
    assert len(set.union(*sides)) == sum(map(len, sides)) == 60
    assert {name: (one["exact"], one["near"]) for name, one in care["leakage"]["made"].items()} == {
        "validation": (0, 0),
        "test": (0, 0),
    }
    example = care["duplicates"]["examples"][0]
    assert (example["row"], example["of"]["row"], example["input"], example["target"]) == (61, 1, sentence(0), "a")


def test_data_without_duplicates_is_split_as_without_care(run: Any, write: Any) -> None:
    name = write("a.jsonl", clean(80))
    assert run(train=name).manifest["split_hash"] == run(train=name, leakage="off").manifest["split_hash"]


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"duplicates": "drop"}, [41, 42, 43]),
        ({"conflicts": "drop"}, [5, 40, 41, 42]),
        ({"conflicts": "majority"}, [40]),
        ({"conflicts": "majority", "duplicates": "drop"}, [40, 41, 42, 43]),
        ({"near_duplicates": "drop"}, [44]),
        ({"duplicates": "drop", "near_duplicates": "drop"}, [41, 42, 43, 44]),
    ],
)
def test_what_is_dropped(tmp_path: Path, settings: dict[str, str], gone: list[int]) -> None:
    rows = [{"text": text, "label": label} for text, label in clean(40)]
    rows += [{"text": sentence(5) + space, "label": label} for label, space in (("a", ""), ("b", " \t"), ("b", ""))]  # 5 is a b
    rows.append(dict(rows[7]))
    rows += [{"text": sentence(8).title() + mark, "label": label} for label, mark in (("a", "."), ("b", "!"))]  # 8 is an a
    found = cared({"train": rows}, "text-classification", tmp_path, clean=settings)
    assert sorted(left_out(found, "train")) == gone


@pytest.mark.parametrize("what", ["duplicates", "conflicts"])
def test_an_error_names_both_rows(run: Any, write: Any, what: str) -> None:
    rows = [*clean(40), (sentence(3), "b" if what == "duplicates" else "a")]  # 3 is a b
    with pytest.raises(DataError) as caught:
        run(train=write("a.jsonl", rows), clean={what: "error"})
    said = str(caught.value)
    assert "a.jsonl, row 41" in said
    assert "a.jsonl, row 4" in said
    assert repr(sentence(3)) in said
    assert f"set data.clean.{what}: drop" in said


def test_a_leak_into_a_given_split_is_refused_and_named(run: Any, write: Any) -> None:
    train, test = write("a.jsonl", clean(40)), write("t.jsonl", [("far from all of them", "a"), (sentence(9) + " ", "b")])
    with pytest.raises(DataError) as caught:
        run(train=train, test=test)
    said = str(caught.value)
    assert "data.test: 1 of 2 rows also stand in data.train, exactly" in said
    assert "t.jsonl, row 2 = " in said
    assert "a.jsonl, row 10" in said
    assert "data.leakage: move" in said


@pytest.mark.parametrize("action", ["auto", "error", "move", "report", "off"])
def test_near_leaks_into_given_splits(run: Any, write: Any, action: str) -> None:
    rows = [(f"quite another text, number {k * k}", "a") for k in range(3)] + [(sentence(9).upper() + "!", "b")]
    wanted = {"train": write("a.jsonl", clean(40)), "test": write("t.jsonl", rows), "leakage": action}
    if action == "error":
        with pytest.raises(DataError, match="nearly"):
            run(**wanted)
        return
    data = run(**wanted)
    moved = action == "move"
    assert len(data.splits["test"]) == (3 if moved else 4)
    texts = kept(data)
    assert (rows[3][0] in texts["train"] + texts["validation"]) == moved
    assert sum(len(data.splits[name]) for name in ("train", "validation")) == (41 if moved else 40)
    given = data.manifest["care"]["leakage"]["given"]
    assert given == {} if action == "off" else (given["test"]["exact"], given["test"]["near"]) == (0, 1)
    if moved:
        assert (sentence(9) in texts["train"]) == (rows[3][0] in texts["train"]), "the copies stay on one side"


def test_exact_leaks_that_move_only_leave_the_evaluation(run: Any, write: Any) -> None:
    rows = [(sentence(k), "ab"[k % 2]) for k in range(38, 44)]
    data = run(train=write("a.jsonl", clean(40)), test=write("t.jsonl", rows), leakage="move")
    assert kept(data)["test"] == [sentence(k) for k in range(40, 44)]
    assert sum(map(len, kept(data).values())) == 44
    assert data.manifest["care"]["leakage"]["given"]["test"]["left_out"] == 2


def test_a_moved_row_keeps_its_place_and_its_class(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in clean(30)]
    test = [{"text": sentence(60), "label": "a"}, {"text": sentence(4).upper(), "label": "c"}]
    found = cared({"train": rows, "test": test}, "text-classification", tmp_path, leakage="move")
    train = found.given["train"]
    card = train.take(found.kept["train"][-1:])
    assert (card["text"].to_pylist(), card["label"].to_pylist(), card["__row"].to_pylist()) == ([test[1]["text"]], ["c"], [2])
    assert train.files[card["__file"][0].as_py()].endswith("test.parquet")
    assert train.strata is not None
    assert train.classes[train.strata[-1]] == "c"
    assert found.kept["test"].tolist() == [0]


@pytest.mark.parametrize("split", [{"by": "random"}, {"group": "owner"}, {"time": "day"}])
def test_every_way_of_splitting_keeps_copies_apart(run: Any, tmp_path: Path, split: dict[str, str]) -> None:
    texts = [sentence(k - 40 if k >= 60 and k % 3 == 0 else k) for k in range(100)]
    rows = [{"text": text, "label": "ab"[k % 2], "owner": k // 4, "day": k} for k, text in enumerate(texts)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = run(train="a.parquet", split=split)
    sides = [set(texts) for texts in kept(data).values()]
    assert len(set.union(*sides)) == sum(map(len, sides))
    made = data.manifest["care"]["leakage"]
    assert all(one["exact"] == 0 for one in made["made"].values())
    days = [part.rows()["day"].to_pylist() for part in data.splits.values()]
    if "time" in split:
        assert max(days[0]) < min(days[1]) <= max(days[1]) < min(days[2])
        assert made["left_out"] == 100 - sum(map(len, days)) > 0
    if "group" in split:
        owners = [set(part.rows()["owner"].to_pylist()) for part in data.splits.values()]
        assert len(set.union(*owners)) == sum(map(len, owners))


def test_leaks_between_made_splits_are_counted_where_they_are_only_reported(run: Any, write: Any) -> None:
    data = run(train=write("a.jsonl", clean(50) * 2), leakage="report")
    texts = kept(data)
    wanted = sum(text in texts["train"] for text in texts["validation"])
    assert data.manifest["care"]["leakage"]["made"]["validation"]["exact"] == wanted > 0
    assert data.manifest["care"]["leakage"]["kept_together"] == 0


def test_rows_of_one_template_are_not_taken_for_copies(run: Any, write: Any) -> None:
    rows = [
        (f"a long sentence that every one of the rows begins with, and then its number {k:03d}", "ab"[k % 2]) for k in range(90)
    ]
    data = run(train=write("a.jsonl", rows))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 72, "validation": 9, "test": 9}
    assert data.manifest["care"]["leakage"]["parted"] == 90
    assert data.manifest["care"]["leakage"]["made"]["test"]["near"] > 0


def test_texts_are_normalised_on_request(run: Any, write: Any) -> None:
    rows = [*clean(30), ("two\u00a0 words\n", "a"), ("cafe\u0301", "b")]
    texts = kept(run(train=write("a.jsonl", rows), clean={"normalize": True}, split={"validation": 0, "test": 0}))["train"]
    assert texts[-2:] == ["two words", "caf\u00e9"]
    assert kept(run(train="a.jsonl", split={"validation": 0, "test": 0}))["train"][-2:] == ["two\u00a0 words\n", "cafe\u0301"]


def test_missing_values_are_counted(run: Any, write: Any) -> None:
    rows = [*clean(30), ("", "a"), ("x", None)]
    data = run(train=write("a.jsonl", rows), on_bad_row="drop")
    assert data.manifest["care"]["missing"] == 2


def test_near_duplicates_are_not_looked_for_among_too_many(run: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.NEAR_ROWS, "text", 40)
    rows = [*clean(50), (sentence(0).upper(), "a")]
    looked = run(train=write("a.jsonl", rows)).manifest["care"]["near_duplicates"]
    assert (looked["rows"], looked["looked_for"]["done"]) == (0, False)
    assert "51 different inputs are more than 40" in looked["looked_for"]["why"]
    asked = run(train="a.jsonl", clean={"near_duplicates": "report"}).manifest["care"]["near_duplicates"]
    assert (asked["rows"], asked["looked_for"]["done"]) == (1, True)


def test_data_for_a_frozen_model_is_only_counted(recipe: Make, write: Any, letters: Any, tmp_path: Path) -> None:
    name = write("t.jsonl", clean(10) * 2)
    strict = recipe(train=name, clean={"duplicates": "error", "conflicts": "error"}, leakage="error")
    state = Preprocessing({"labels": ["a", "b"], "max_length": 50})
    found = prepare_frozen(strict, letters, state, str(tmp_path / name), output_dir=str(tmp_path / "runs"))
    assert len(found.splits["test"]) == 20


@pytest.mark.parametrize("other", [{"leakage": "off"}, {"label_errors": "report"}, {"clean": {"similarity": 0.9}}])
def test_other_settings_prepare_anew(recipe: Make, write: Any, letters: Any, tmp_path: Path, other: dict[str, Any]) -> None:
    write("a.jsonl", clean(30))
    names = []
    for data in ({}, other):
        made = recipe(train="a.jsonl", **data)
        sources = resolve_splits(made.data, str(tmp_path))
        names.append(key.prepared_key(made, letters, key.data_hashes(sources, tmp_path), sources))
    assert names[0] != names[1]


def recall_and_precision(found: set[int], planted: set[int]) -> tuple[float, float]:
    return len(found & planted) / len(planted), len(found & planted) / max(1, len(found))


def test_planted_faults_in_texts_are_found(tmp_path: Path) -> None:
    made = planted_texts(600, 40)
    rows = {"train": made.train, "test": made.test}
    one = cared(rows, "text-classification", tmp_path / "1", clean={"duplicates": "drop"}, leakage="move")
    assert recall_and_precision(left_out(one, "train"), made.duplicates) == (1, 1)
    gone = left_out(one, "test")
    assert recall_and_precision(gone & made.leaks, made.leaks) == (1, 1)
    assert min(recall_and_precision(gone - made.leaks, made.near_leaks)) >= 0.95
    two = cared(
        rows, "text-classification", tmp_path / "2", clean={"conflicts": "drop", "near_duplicates": "drop"}, leakage="off"
    )
    gone = left_out(two, "train")
    assert recall_and_precision(gone - made.near, made.conflicts) == (1, 1)
    assert recall_and_precision(gone & made.near, made.near)[0] >= 0.95


def test_planted_faults_in_images_are_found(tmp_path: Path) -> None:
    made = planted_digits(40)
    rows = {"train": made.train, "test": made.test}
    one = cared(rows, "image-classification", tmp_path, clean={"duplicates": "drop", "near_duplicates": "drop"}, leakage="move")
    gone = left_out(one, "train")
    assert made.duplicates <= gone
    assert min(recall_and_precision(gone - made.duplicates, made.near)) >= 0.95
    assert made.leaks <= left_out(one, "test")
