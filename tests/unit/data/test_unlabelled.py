"""Unlabelled rows: kept apart from what is judged, their true labels out of reach, and joined behind the training rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from support.data import pictures, sentences, texts
from support.models import tiny_bert, tiny_resnet
from tunesmith.data.inputs_only import SPLIT
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.data.unlabelled import one_class, prepare_unlabelled, truth_of, with_pseudo_labels
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

pytestmark = pytest.mark.unit
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def made(folder: Path, more: Rows, **data: Any) -> tuple[Recipe, PreparedData, PreparedData]:
    """The recipe, the labelled data and the unlabelled rows."""
    if not (folder / "base").exists():
        tiny_bert(folder / "base")
    files = {name: write(folder / f"{name}.jsonl", texts(30, seed=seed)) for name, seed in (("train", 1), ("test", 3))}
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(folder / "base")},
        "data": {**files, "split": {"validation": 0.2}, "unlabelled": {"data": write(folder / "more.jsonl", more)}, **data},
        "training": {"output_dir": str(folder / "runs")},
    }
    recipe = Recipe.from_dict(values)
    task = load_task(recipe.task)
    labelled = prepare(recipe, task, output_dir=recipe.training.output_dir)
    found = prepare_unlabelled(recipe, task, labelled)
    assert found is not None
    return recipe, labelled, found


def shown(data: PreparedData, split: str) -> list[str]:
    return [row["text"] for row in data.splits[split].examples()]


def test_rows_of_the_labelled_data_are_left_out_and_copies_counted_once(tmp_path: Path) -> None:
    fresh = [{"text": row["text"]} for row in texts(25, seed=9)]
    _, labelled, _ = made(tmp_path, fresh)
    stand = {name: [{"text": text} for text in shown(labelled, name)] for name in ("train", "validation", "test")}
    long = max((row["text"] for row in stand["test"]), key=len)
    nearly = [{"text": f"{long} word0"}]
    _, _, found = made(
        tmp_path, [*fresh, *fresh[:5], *stand["train"][:4], *stand["validation"][:3], *stand["test"][:2], *nearly]
    )
    left = found.manifest["left_out"]
    assert (left["seen"], left["copies"]) == (40, 5)
    assert {name: left[name] for name in ("train", "validation", "test")} == {
        "train": {"exact": 4, "near": 0},
        "validation": {"exact": 3, "near": 0},
        "test": {"exact": 2, "near": 1},
    }
    assert shown(found, SPLIT) == [row["text"] for row in fresh]


def test_rows_of_a_group_that_is_judged_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelled = [{**row, "patient": number // 3} for number, row in enumerate(texts(30, seed=1))]
    more = [{"text": row["text"], "patient": str(number)} for number, row in enumerate(texts(12, seed=9))]
    settings: dict[str, Any] = {"train": write(tmp_path / "patients.jsonl", labelled), "test": None}
    settings |= {"split": {"validation": 0.2, "test": 0.2, "group": "patient"}}
    _, prepared, found = made(tmp_path, more, **settings)
    of = {name: set(split.rows()["patient"].to_pylist()) for name, split in prepared.splits.items()}
    assert sorted(map(int, found.splits[SPLIT].rows()["patient"].to_pylist())) == sorted(of["train"] | {10, 11})
    left = found.manifest["left_out"]
    assert {name: left[name]["group"] for name in ("validation", "test")} == {
        name: len(of[name]) for name in ("validation", "test")
    }
    made(tmp_path, [{"text": row["text"]} for row in more], **settings)
    assert "has no column 'patient'" in caplog.text


@pytest.mark.parametrize(("way", "taken", "out"), [("group", [-1, 32, 40], 2), ("time", [-1], 4)])
def test_rows_on_the_side_of_a_given_split_are_left_out(way: str, taken: list[int], out: int, tmp_path: Path) -> None:
    rows = {"train": texts(30, seed=1), "test": texts(4, seed=3)}
    numbers = {"train": list(range(30)), "test": [30, 31, 31, 31]}
    files = {
        name: write(tmp_path / f"{way}-{name}.jsonl", [{**row, "k": k} for row, k in zip(some, numbers[name], strict=True)])
        for name, some in rows.items()
    }
    more = [{"text": row["text"], "k": k} for k, row in zip([-1, 30, 31, 32, 40], texts(5, seed=9), strict=True)]
    _, _, found = made(tmp_path, more, **files, split={way: "k", "validation": 0.2})
    assert found.splits[SPLIT].rows()["k"].to_pylist() == taken
    assert found.manifest["left_out"]["test"][way] == out


def numbered(folder: Path, test: list[int]) -> dict[str, str]:
    """Files of rows with a number ``k``: 0 to 29 to learn from, and those to judge."""
    of = {"train": (1, list(range(30))), "test": (3, test)}
    rows = {name: zip(texts(30, seed=seed), numbers, strict=False) for name, (seed, numbers) in of.items()}
    return {name: write(folder / f"k-{name}.jsonl", [{**row, "k": k} for row, k in some]) for name, some in rows.items()}


@pytest.mark.parametrize("leakage", ["report", "off", "move"])
def test_rows_on_the_side_of_a_given_split_stay_where_that_was_not_kept_apart(leakage: str, tmp_path: Path) -> None:
    """The test split begins with train; the made validation split is the last fifth of that, 24 to 29."""
    files = numbered(tmp_path, [0, 29, 31, 31])
    more = [{"text": row["text"], "k": k} for row, k in zip(texts(4, seed=9), [1, 5, 24, 40], strict=True)]
    _, _, found = made(tmp_path, more, **files, split={"time": "k", "validation": 0.2}, leakage=leakage)
    assert found.splits[SPLIT].rows()["k"].to_pylist() == [1, 5]
    assert ("time" in found.manifest["left_out"]["test"]) == (leakage == "move")


@pytest.mark.parametrize(("way", "why"), [("group", "2 are of a group that is judged"), ("time", "2 are as late as what is")])
def test_where_none_is_left_the_message_says_why(way: str, why: str, tmp_path: Path) -> None:
    files = numbered(tmp_path, [31, 31])
    more = [{"text": row["text"], "k": 31} for row in texts(2, seed=9)]
    with pytest.raises(DataError, match=rf"none of its 2 usable rows is left: {why}[^\n]*\n"):
        made(tmp_path, more, **files, split={way: "k", "validation": 0.2})


@pytest.mark.parametrize("written", ["2026-01-{:02d}", "{}"])
def test_rows_as_late_as_those_that_are_judged_are_left_out(
    written: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of the days 1 to 30; the last fifth is the test split, the fifth before it validation."""
    labelled = [{**row, "day": written.format(number + 1)} for number, row in enumerate(texts(30, seed=1))]
    days = [1, 18, 19, 24, 25, 30, 31]
    more = [{"text": row["text"], "day": written.format(day)} for day, row in zip(days, texts(60, seed=9)[50:57], strict=True)]
    untold = [{"text": "word1 word2", "day": None}]
    settings: dict[str, Any] = {"train": write(tmp_path / "days.jsonl", labelled), "test": None}
    settings |= {"split": {"validation": 0.2, "test": 0.2, "time": "day"}}
    _, prepared, found = made(tmp_path, [*more, *untold], **settings)
    assert [len(prepared.splits[name]) for name in ("train", "validation", "test")] == [18, 6, 6]
    assert found.splits[SPLIT].rows()["day"].to_pylist() == [written.format(day) for day in (1, 18)]
    left = found.manifest["left_out"]
    assert [left[name]["time"] for name in ("validation", "test")] == [2, 4]
    made(tmp_path, [{"text": row["text"]} for row in more], **settings)
    assert "has no column 'day'" in caplog.text
    other = {"2026-01-{:02d}": "{}", "{}": "2026-01-{:02d}"}[written]
    with pytest.raises(DataError, match="holds numbers here and dates in"):
        made(tmp_path, [{**row, "day": other.format(1)} for row in more], **settings)


def test_a_true_label_is_kept_for_the_account_and_reaches_no_feature(tmp_path: Path) -> None:
    rows = texts(20, seed=9)
    _, _, found = made(tmp_path, rows)
    assert truth_of(found) == [row["label"] for row in rows]
    split = found.splits[SPLIT]
    assert all("labels" not in one.values for one in split.features(range(20)))
    assert all("label" not in row for row in split.examples())
    _, _, without = made(tmp_path, [{"text": row["text"]} for row in rows])
    assert truth_of(without) is None


def test_a_named_label_column_may_be_missing(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "base")
    named = [{"text": row["text"], "stars": row["label"]} for row in texts(40, seed=1)]
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(tmp_path / "base")},
        "data": {
            "train": write(tmp_path / "train.jsonl", named),
            "columns": {"label": "stars"},
            "unlabelled": {"data": write(tmp_path / "more.jsonl", [{"text": row["text"]} for row in texts(9, seed=5)])},
        },
        "training": {"output_dir": str(tmp_path / "runs")},
    }
    recipe = Recipe.from_dict(values)
    task = load_task(recipe.task)
    found = prepare_unlabelled(recipe, task, prepare(recipe, task, output_dir=recipe.training.output_dir))
    assert found is not None
    assert len(found.splits[SPLIT]) == 9


def test_pseudo_labels_stand_behind_the_training_rows(tmp_path: Path) -> None:
    recipe, labelled, found = made(tmp_path, texts(20, seed=9))
    chosen, names = np.array([3, 4, 11]), ["low", "high", "low"]
    joined = with_pseudo_labels(recipe, load_task(recipe.task), labelled, found, chosen, names)
    before, after = labelled.splits["train"], joined.splits["train"]
    n = len(before)
    assert len(after) == n + 3
    assert shown(joined, "train") == [*shown(labelled, "train"), *[shown(found, SPLIT)[k] for k in chosen]]
    assert [row["label"] for row in after.examples()][n:] == names
    one, other = (found.splits[SPLIT].features(chosen), after.features(range(n, n + 3)))
    for bare, full, name in zip(one, other, names, strict=True):
        np.testing.assert_array_equal(bare.values["input_ids"], full.values["input_ids"])
        assert full.values["labels"] == labelled.state["labels"].index(name)
    counts = dict(zip(labelled.state["labels"], labelled.state["label_counts"], strict=True))
    assert joined.state["label_counts"] == [counts["high"] + 1, counts["low"] + 2]
    assert joined.manifest["splits"]["train"]["labels"] == {"high": counts["high"] + 1, "low": counts["low"] + 2}
    for name in ("validation", "test"):
        assert joined.splits[name].hash == labelled.splits[name].hash
        assert shown(joined, name) == shown(labelled, name)
    assert after.hash != before.hash
    other_labels = with_pseudo_labels(recipe, load_task(recipe.task), labelled, found, chosen, ["low", "low", "low"])
    assert other_labels.splits["train"].hash != after.hash
    assert with_pseudo_labels(recipe, load_task(recipe.task), labelled, found, chosen, names).path == joined.path


def test_few_labelled_rows_of_a_file_learn_from_the_rest_of_it(tmp_path: Path) -> None:
    """The rows that ``few_shot`` did not draw are unlabelled rows; those drawn, and the validation rows, are not."""
    rows = texts(80, seed=1)
    _, labelled, found = made(tmp_path, rows, train=write(tmp_path / "all.jsonl", rows), few_shot={"per_class": 4})
    assert len(labelled.splits["train"]) == 8
    mine = set(shown(found, SPLIT))
    for name in ("train", "validation", "test"):
        assert not mine & set(shown(labelled, name))
    assert len(mine) == len({row["text"] for row in rows} - set(shown(labelled, "train")) - set(shown(labelled, "validation")))


def test_images_in_a_folder_without_classes(tmp_path: Path) -> None:
    from PIL import Image

    for folder, seed in (("train", 0), ("more", 1)):
        for k, row in enumerate(pictures(24, seed=seed)):
            place = tmp_path / folder / (row["label"] if folder == "train" else "")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row["image"]).save(place / f"{k}.png")
    recipe = Recipe.from_dict(
        {
            "task": "image-classification",
            "model": {"model_name_or_path": str(tiny_resnet(tmp_path / "base"))},
            "data": {"train": str(tmp_path / "train"), "unlabelled": {"data": str(tmp_path / "more")}},
            "training": {"output_dir": str(tmp_path / "runs")},
        }
    )
    task = load_task(recipe.task)
    labelled = prepare(recipe, task, output_dir=recipe.training.output_dir)
    found = prepare_unlabelled(recipe, task, labelled)
    assert found is not None
    assert (len(found.splits[SPLIT]), truth_of(found)) == (24, None)
    joined = with_pseudo_labels(recipe, task, labelled, found, np.array([0, 7]), ["nw", "se"])
    pixels = joined.splits["train"].features([len(joined.splits["train"]) - 1])[0].values["pixel_values"]
    np.testing.assert_array_equal(pixels, found.splits[SPLIT].features([7])[0].values["pixel_values"])


@pytest.mark.parametrize("several", [True, False])
def test_a_task_without_one_class_for_each_row_is_refused(several: bool, tmp_path: Path) -> None:
    tiny_bert(tmp_path / "base")
    rows = [{**row, "label": [row["label"]]} for row in texts(40)] if several else sentences(40)
    recipe = Recipe.from_dict(
        {
            "task": "text-classification" if several else "token-classification",
            "model": {"model_name_or_path": str(tmp_path / "base")},
            "data": {"train": write(tmp_path / "train.jsonl", rows)},
            "training": {"output_dir": str(tmp_path / "runs")},
        }
    )
    task = load_task(recipe.task)
    labelled = prepare(recipe, task, output_dir=recipe.training.output_dir)
    section = recipe.data.unlabelled.model_copy(update={"data": str(tmp_path / "train.jsonl")})
    asked = recipe.model_copy(update={"data": recipe.data.model_copy(update={"unlabelled": section})})
    with pytest.raises(DataError, match="does not have one class here"):
        prepare_unlabelled(asked, task, labelled)


@pytest.mark.parametrize(
    "task", ["support.tasks_ctc:SpeechToText", "support.tasks_detection:Detection", "token-classification"]
)
def test_only_tasks_with_one_class_for_each_row_can_label_rows(task: str) -> None:
    labelled = cast("PreparedData", SimpleNamespace(state={"labels": ["a", "b"]}))
    assert not one_class(load_task(task), labelled)
    assert one_class(load_task("image-classification"), labelled)
