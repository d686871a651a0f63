"""Preparing: what comes out, what is reused, and what is said of bad data."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesmith.data.prepare import prepare, prepare_frozen, statistics
from tunesmith.data.prepared import PreparedData
from tunesmith.errors import DataError, UserError
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Preprocessing

pytestmark = pytest.mark.unit

Make = Callable[..., Recipe]


@pytest.fixture
def run(tmp_path: Path, letters: Any) -> Callable[[Recipe], PreparedData]:
    return lambda recipe: prepare(recipe, letters, output_dir=str(tmp_path / "runs"))


def test_splits_features_rows_and_ids_belong_together(run: Any, recipe: Make, reviews: Path) -> None:
    data = run(recipe(train="reviews.csv"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 160, "validation": 20, "test": 20}
    texts = []
    for split in data.splits.values():
        examples, table = split.examples(), split.rows()
        assert table.column_names == ["text", "label", "customer", "day", "review", "stars"]
        for index, features in enumerate(split.features(range(len(split)))):
            example = examples[index]
            assert "".join(map(chr, features.values["codes"])) == example["text"] == table["review"][index].as_py()
            assert data.state["labels"][features.values["labels"]] == example["label"]
            assert split.lengths[index] == features.length == len(example["text"])
        texts += [example["text"] for example in examples]
        assert split.example(3) == examples[3]
        assert split.rows([2, 0])["text"].to_pylist() == [examples[2]["text"], examples[0]["text"]]
        assert len(set(split.ids.to_pylist())) == len(split)
    assert len(set(texts)) == 200
    assert data.manifest["splits"]["test"]["labels"] == {"1": 13, "2": 7}
    assert data.manifest["split"]["by"] == "stratified"


def test_statistics_of_the_same_rows_are_read_once(tmp_path: Path, letters: Any, recipe: Make, reviews: Path) -> None:
    looked_at: list[str] = []

    class Counting(type(letters)):  # type: ignore[misc]  # the class is that of a fixture
        def check(self, example: Any) -> Any:
            looked_at.append(example["text"])
            return super().check(example)

    first, again = (statistics(recipe(train="reviews.csv"), Counting(), output_dir=str(tmp_path / "runs")) for _ in range(2))
    assert first == again == ({"labels": {"1": 107, "2": 53}}, {"train": 160, "validation": 20, "test": 20})
    assert len(looked_at) == 200
    reviews.write_text(reviews.read_text() + "one more,1,c1,2027-01-01\n")
    statistics(recipe(train="reviews.csv"), Counting(), output_dir=str(tmp_path / "runs"))
    assert len(looked_at) == 401


def test_a_second_run_finds_it_ready(run: Any, recipe: Make, reviews: Path) -> None:
    first = run(recipe(train="reviews.csv"))
    assert run(recipe(train="reviews.csv")).manifest == first.manifest
    (reviews.parent / "moved.csv").write_bytes(reviews.read_bytes())
    assert run(recipe(train="moved.csv")).path == first.path
    assert run(recipe(train="reviews.csv", max_length=5)).path != first.path
    reviews.write_text(reviews.read_text() + "one more,1,c1,2027-01-01\n")
    assert run(recipe(train="reviews.csv")).path != first.path


def test_ids_and_splits_repeat_in_another_place(run: Any, recipe: Make, reviews: Path, letters: Any, tmp_path: Path) -> None:
    one = run(recipe(train="reviews.csv"))
    other = prepare(recipe(train="reviews.csv"), letters, output_dir=str(tmp_path / "elsewhere"))
    assert other.manifest["split_hash"] == one.manifest["split_hash"]
    for name, split in one.splits.items():
        assert other.splits[name].ids.equals(split.ids)
        assert other.splits[name].hash == split.hash


def test_the_same_row_in_another_format_has_the_same_id(run: Any, recipe: Make, tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text("label,text\n" + "".join(f"{row['label']},{row['text']}\n" for row in rows))
    made = [run(recipe(train=f"a.{kind}")) for kind in ("parquet", "jsonl", "csv")]
    assert made[0].splits["train"].ids.equals(made[1].splits["train"].ids)
    assert made[0].splits["train"].ids.equals(made[2].splits["train"].ids)


def test_equal_rows_have_numbered_ids(run: Any, recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "same,1\nother,2\n" * 3)
    ids = run(recipe(train="a.csv", split={"validation": 0, "test": 0})).splits["train"].ids.to_pylist()
    assert [name.partition("-")[2] for name in ids] == ["", "", "2", "2", "3", "3"]
    assert len({name.partition("-")[0] for name in ids}) == 2


def test_given_splits_are_kept_and_missing_ones_cut_off_train(run: Any, recipe: Make, reviews: Path) -> None:
    (reviews.parent / "test.csv").write_text("text,label\nx,1\ny,2\n")
    data = run(recipe(train="reviews.csv", test="test.csv", columns={}))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 180, "validation": 20, "test": 2}
    assert data.splits["test"].source == ["test.csv"]


@pytest.mark.parametrize("by", ["group", "time"])
def test_groups_stay_together_and_time_is_in_order(run: Any, recipe: Make, reviews: Path, by: str) -> None:
    column = {"group": "customer", "time": "day"}[by]
    data = run(recipe(train="reviews.csv", split={by: column}))
    assert data.manifest["split"]["by"] == by
    values = [split.rows()[column].to_pylist() for split in data.splits.values()]
    if by == "time":
        assert max(values[0]) < min(values[1])
        assert max(values[1]) < min(values[2])
    else:
        assert len(set().union(*values)) == sum(len(set(one)) for one in values)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"by": "group", "group": "custmer"}, "Did you mean 'customer'"),
        ({"time": "review"}, r"200 values of the column 'review' are no times: .*reviews.csv row 2"),
        ({"group": "gap"}, r"1 rows have no value in the column 'gap': .*row 3"),
    ],
)
def test_columns_that_cannot_split_are_refused(run: Any, recipe: Make, reviews: Path, split: dict[str, str], said: str) -> None:
    lines = reviews.read_text().splitlines()
    lines = [line + ("," if i == 2 else ",x") for i, line in enumerate(lines)]
    lines[0] = lines[0].removesuffix(",x") + ",gap"
    reviews.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=said):
        run(recipe(train="reviews.csv", split=split))


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """40 good rows and 5 bad ones: an empty text, two missing labels, a short row, one that cannot be encoded."""
    lines = ["text,label", *(f"row {i},{i % 2}" for i in range(40))]
    lines[3:3] = [" ,1", "no label,", "no label either,", "alone"]
    lines.append("bad ☠,1")
    path = tmp_path / "dirty.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_bad_rows_are_listed_with_their_line_and_counted(run: Any, recipe: Make, dirty: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(recipe(train="dirty.csv"))
    message = str(caught.value)
    assert message.startswith("4 of 45 rows cannot be used\n")
    assert f"{dirty}, row 4 (train): text is empty" in message
    assert f"{dirty}, row 7 (train): 1 cells, but the header has 2 columns" in message
    assert "2 × label is missing; 1 × 1 cells" in message
    assert "data.on_bad_row" in message


def test_a_row_that_cannot_be_encoded_is_a_bad_row_too(run: Any, recipe: Make, dirty: Path, tmp_path: Path) -> None:
    text = dirty.read_text().splitlines()
    dirty.write_text("\n".join(text[:3] + text[7:]) + "\n")
    with pytest.raises(DataError, match=r"1 of 41 rows cannot be used\n.*row 42.*text is poisonous"):
        run(recipe(train="dirty.csv"))
    assert not [path for path in (tmp_path / "runs" / ".cache").iterdir() if path.is_dir()], "half a build is left behind"


@pytest.mark.parametrize("mode", ["drop", "quarantine"])
def test_bad_rows_can_be_left_out_and_are_not_lost(run: Any, recipe: Make, dirty: Path, mode: str, caplog: Any) -> None:
    with caplog.at_level("WARNING"):
        data = run(recipe(train="dirty.csv", on_bad_row=mode))
    assert sum(map(len, data.splits.values())) == 40
    assert data.manifest["problems"]["by_reason"] == {
        "label is missing": 2,
        "1 cells, but the header has 2 columns": 1,
        "text is empty": 1,
        "text is poisonous": 1,
    }
    assert "cannot be used" in caplog.text
    if mode == "drop":
        assert data.quarantine is None
    else:
        kept = [json.loads(line) for line in data.quarantine.read_text().splitlines()]
        assert {(one["row"], one["reason"]) for one in kept} >= {(5, "label is missing"), (46, "text is poisonous")}
        assert next(one for one in kept if one["row"] == 5)["data"]["text"] == "no label"
    for split in data.splits.values():
        assert len(split.ids) == len(split.examples()) == len(split.features(range(len(split))))


def test_a_label_that_train_lacks_is_named_with_its_row(run: Any, recipe: Make, reviews: Path) -> None:
    (reviews.parent / "test.csv").write_text("text,label\nx,1\ny,3\n")
    with pytest.raises(DataError, match=r"test\.csv, row 3 \(test\): label '3' is not among the labels"):
        run(recipe(train="reviews.csv", test="test.csv"))
    dropped = run(recipe(train="reviews.csv", test="test.csv", on_bad_row="drop"))
    assert len(dropped.splits["test"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("text,label\n", "has no rows"),
        ("text,label\na,1\nb,1\nc,1\nd,1\n", "only the class"),
        ("text,label\n,1\n,2\n", "2 of 2 rows cannot be used"),
    ],
)
def test_data_that_cannot_be_used_is_refused(run: Any, recipe: Make, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        run(recipe(train="a.csv"))


def test_when_every_row_is_bad_dropping_does_not_help(run: Any, recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n,1\n,2\n")
    with pytest.raises(DataError, match="no row of the train split can be used"):
        run(recipe(train="a.csv", on_bad_row="drop"))


def test_max_train_samples_keeps_shares_labels_and_other_splits(run: Any, recipe: Make, reviews: Path) -> None:
    whole, few = run(recipe(train="reviews.csv")), run(recipe(train="reviews.csv", max_train_samples=30))
    assert few.manifest["splits"]["train"]["labels"] == {"1": 20, "2": 10}
    assert few.state == whole.state
    assert few.splits["test"].hash == whole.splits["test"].hash


def test_max_validation_samples_limits_a_validation_split_cut_off_or_given(run: Any, recipe: Make, reviews: Path) -> None:
    whole, few = run(recipe(train="reviews.csv")), run(recipe(train="reviews.csv", max_validation_samples=6))
    assert few.manifest["splits"]["validation"]["labels"] == {"1": 4, "2": 2}
    assert all(few.splits[name].hash == whole.splits[name].hash for name in ("train", "test"))
    lines = reviews.read_text().splitlines(keepends=True)
    for name, first in (("train", 1), ("validation", 101), ("test", 151)):
        reviews.with_name(f"{name}.csv").write_text("".join([lines[0], *lines[first : first + 50]]))
    given = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    drawn = [run(recipe(**given, max_validation_samples=6, split={"seed": seed})) for seed in (1, 2)]
    assert [len(data.splits["validation"]) for data in drawn] == [6, 6]
    assert drawn[0].splits["validation"].hash != drawn[1].splits["validation"].hash


def test_few_shot_draws_so_many_of_each_class_and_leaves_the_other_splits(run: Any, recipe: Make, reviews: Path) -> None:
    whole = run(recipe(train="reviews.csv"))
    few, other = (run(recipe(train="reviews.csv", few_shot={"per_class": 5, "seed": seed})) for seed in (1, 2))
    assert few.manifest["splits"]["train"]["labels"] == {"1": 5, "2": 5}
    assert few.splits["train"].hash != other.splits["train"].hash
    assert few.splits["test"].hash == other.splits["test"].hash == whole.splits["test"].hash
    with pytest.raises(DataError, match=r"per_class is 1000, but (?s:.*) → Lower"):
        run(recipe(train="reviews.csv", few_shot={"per_class": 1000}))


def test_files_of_different_columns_and_types_are_joined(run: Any, recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,age\n" + "".join(f"a{i},{i % 2},{i}\n" for i in range(20)))
    (tmp_path / "b.jsonl").write_text(
        "".join(f'{{"review": "b{i}", "label": {i % 2}, "age": {i}.5, "big": {{}}}}\n' for i in range(20))
    )
    data = run(recipe(train=["a.csv", "b.jsonl"], split={"validation": 0, "test": 0}))
    table = data.splits["train"].rows()
    assert len(table) == 40
    assert table["age"].to_pylist()[18:22] == ["18", "19", "0.5", "1.5"]
    assert table.column_names == ["text", "label", "age"]


def test_columns_called_like_a_role_do_not_clash(run: Any, recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,body,label\n" + "".join(f"old{i},new{i},{i % 2}\n" for i in range(20)))
    split = run(recipe(train="a.csv", columns={"text": "body"})).splits["train"]
    assert split.example(0)["text"].startswith("new")
    assert split.rows()["text_"][0].as_py().startswith("old")


def test_other_data_is_judged_with_the_frozen_state(
    run: Any, recipe: Make, reviews: Path, letters: Any, tmp_path: Path
) -> None:
    made = recipe(train="reviews.csv")
    data = run(made)
    (tmp_path / "more.csv").write_text("text,label\nx,2\ny,2\n")
    frozen = Preprocessing(data.state, None)
    given: Any = {"output_dir": str(tmp_path / "runs"), "base_dir": str(tmp_path)}
    split = prepare_frozen(made, letters, frozen, "more.csv", **given).splits["test"]
    assert (split.name, len(split)) == ("test", 2)
    assert [one.values["labels"] for one in split.features([0, 1])] == [1, 1]
    (tmp_path / "more.csv").write_text("text,label\nx,9\n")
    with pytest.raises(DataError, match="label '9' is not among"):
        prepare_frozen(made, letters, frozen, "more.csv", **given)


def test_two_at_once_prepare_once(recipe: Make, reviews: Path, letters: Any, tmp_path: Path) -> None:
    calls, paths = [], []
    collect = letters.collect
    letters.collect = lambda examples: calls.append(1) or collect(examples)

    def work() -> None:
        paths.append(prepare(recipe(train="reviews.csv"), letters, output_dir=str(tmp_path / "runs")).path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert len(calls) == 1


def test_a_build_that_was_killed_is_swept_away(run: Any, recipe: Make, reviews: Path, tmp_path: Path) -> None:
    key = Path(run(recipe(train="reviews.csv")).path)
    left = key.with_name(f".{key.name}.0000.tmp")
    left.mkdir()
    (key / "manifest.json").unlink()
    run(recipe(train="reviews.csv"))
    assert not left.exists()


def test_a_remote_cache_is_opened_from_a_local_copy(
    recipe: Make, reviews: Path, letters: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    made = recipe(train="reviews.csv", cache_dir="memory://prepared")
    data = prepare(made, letters, output_dir="unused")
    assert data.path.startswith("memory://prepared/")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    elsewhere = PreparedData.open(data.path)
    assert elsewhere.folder.is_relative_to(tmp_path / "other")
    assert elsewhere.splits["test"].ids.equals(data.splits["test"].ids)


def test_prepared_data_travels_as_its_path(run: Any, recipe: Make, reviews: Path) -> None:
    data = run(recipe(train="reviews.csv"))
    packed = pickle.dumps(data)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).splits["train"].lengths, data.splits["train"].lengths)


def test_an_unwritable_cache_is_said(recipe: Make, reviews: Path, letters: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written: .* is a file, not a folder"):
        prepare(recipe(train="reviews.csv"), letters, output_dir=str(tmp_path / "file"))


def test_a_full_disk_is_said_and_nothing_is_left(recipe: Make, reviews: Path, letters: Any, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            prepare(recipe(train="reviews.csv"), letters, output_dir=str(tmp_path / "runs"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in (tmp_path / "runs" / ".cache").iterdir() if path.is_dir()]


def test_opening_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared data"):
        PreparedData.open(str(tmp_path))


def test_progress_is_told(recipe: Make, reviews: Path, letters: Any, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(recipe(train="reviews.csv"), letters, output_dir=str(tmp_path / "runs"), progress=lambda *a: told.append(a))
    assert told[0] == ("read", 200, 0)
    assert told[-1] == ("encode", 200, 200)
