"""What was found of the known faults is counted by its definition, and rows that are not there are told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.planted import Planted, Words, planted_digits, planted_texts
from tunesmith.data.care.known import Flagged, Flags, Known, hits, measured
from tunesmith.data.prepare import prepare, prepare_frozen
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing

pytestmark = pytest.mark.unit

Make = Callable[..., Recipe]


def known(rows: list[int], pairs: list[tuple[int, int]] | None = None) -> Known:
    return Known(np.array(rows, np.int64), np.array(pairs or [], np.int64).reshape(-1, 2))


def flags(kind: str, rows: list[int], **more: Any) -> Flags:
    return Flags({kind: Flagged(np.array(rows, np.int64), **more)})


def count(kind: str, listed: Known, found: Flags) -> tuple[Any, ...]:
    entry = measured({kind: listed}, found)[kind]
    return tuple(entry[name] for name in ("planted", "looked_at", "found", "by_mistake", "precision", "recall"))


def test_either_of_two_copies_may_be_flagged() -> None:
    for flagged in ([7], [3]):
        assert count("duplicate", known([7], [(7, 3)]), flags("duplicate", flagged)) == (1, 1, 1, 0, 1.0, 1.0)
    assert count("duplicate", known([7], [(7, 3)]), flags("duplicate", [3, 7])) == (1, 1, 1, 1, 0.5, 1.0), "only one is a copy"


def test_of_three_equal_rows_two_are_copies() -> None:
    listed = known([5, 9], [(5, 2), (9, 5)])
    assert count("near-duplicate", listed, flags("near-duplicate", [2, 9])) == (2, 2, 2, 0, 1.0, 1.0)
    assert count("near-duplicate", listed, flags("near-duplicate", [9, 30])) == (2, 2, 1, 1, 0.5, 0.5)


def test_both_rows_of_a_conflict_are_meant() -> None:
    listed = known([4], [(4, 1)])
    assert count("conflict", listed, flags("conflict", [1, 4])) == (2, 2, 2, 0, 1.0, 1.0)
    assert count("conflict", listed, flags("conflict", [1])) == (2, 2, 1, 0, 1.0, 0.5)


def test_a_leak_is_the_row_to_judge_by_and_no_other() -> None:
    assert count("leak", known([40, 41]), flags("leak", [41, 50, 51])) == (2, 2, 1, 2, 0.3333, 0.5)


def test_label_errors_are_counted_at_the_audits_own_cut_and_among_the_first_2k() -> None:
    ranked = [9, 1, 3, 8, 2, 7]
    found = flags("mislabelled", ranked, looked_at=np.arange(10), ranked=True)
    entry = measured({"mislabelled": known([1, 2, 30])}, found)["mislabelled"]
    assert (entry["planted"], entry["looked_at"]) == (3, 2), "row 30 is not trained on"
    assert (entry["found"], entry["by_mistake"], entry["precision"], entry["recall"]) == (2, 4, 0.3333, 1.0)
    assert entry["in_first_2k"] == 0.5, "of 1 and 2 only 1 is among the first four"


def test_what_was_not_looked_for_has_no_shares_and_nothing_flagged_no_precision() -> None:
    assert count("leak", known([3]), Flags()) == (1, 0, None, None, None, None)
    assert count("leak", known([3]), flags("leak", [])) == (1, 1, 0, 0, None, 0.0)


@given(
    st.lists(st.integers(0, 9), unique=True, max_size=6),
    st.lists(st.integers(0, 9), unique=True, max_size=6),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4),
)
def test_hits_are_the_largest_matching_of_listed_and_flagged_rows(
    listed: list[int], flagged: list[int], pairs: list[tuple[int, int]]
) -> None:
    """By definition: each flagged row can stand for one listed row of its group."""
    group = list(range(10))
    for one, other in pairs:
        group = [group[one] if code == group[other] else code for code in group]
    least = min(len(listed), len(flagged))
    best = max(
        sum(group[one] == group[other] for one, other in zip(chosen, order, strict=True))
        for chosen in itertools.combinations(listed, least)
        for order in itertools.permutations(flagged, least)
    )
    found = hits(np.array(listed, np.int64), np.array(flagged, np.int64), np.array(pairs, np.int64).reshape(-1, 2))
    assert found == best


def write(rows: list[dict[str, Any]], file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def listed(made: Planted) -> str:
    """The faults as a list; in JSON Lines row k stands in line k + 1."""
    lines = ["split,row,fault"]
    for split, kind, rows in (
        ("train", "duplicate", made.duplicates),
        ("train", "near-duplicate", made.near),
        ("train", "conflict", made.conflicts),
        ("test", "leak", made.leaks),
        ("test", "near-leak", made.near_leaks),
    ):
        lines += [f"{split},{row + 1},{kind}" for row in sorted(rows)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("clean", ["report", "drop"])
def test_planted_texts_are_found_whatever_is_done_with_them(tmp_path: Path, letters: Any, recipe: Make, clean: str) -> None:
    made = planted_texts(300, 12)
    write(made.train, tmp_path / "train.jsonl")
    write(made.test, tmp_path / "test.jsonl")
    (tmp_path / "faults.csv").write_text(listed(made))
    section = {"duplicates": clean, "near_duplicates": clean, "conflicts": clean}
    leakage = "move" if clean == "drop" else "report"
    wanted = recipe(
        train="train.jsonl", test="test.jsonl", known_faults="faults.csv", clean=section, leakage=leakage, max_length=9
    )
    data = prepare(wanted, letters, output_dir=str(tmp_path / "runs"))
    found = data.manifest["care"]["known_faults"]
    assert {kind: one["planted"] for kind, one in found.items()} == {
        "duplicate": 12, "near-duplicate": 12, "conflict": 24, "leak": 12, "near-leak": 12
    }  # fmt: skip
    for one in found.values():
        assert (one["found"], one["by_mistake"], one["precision"], one["recall"]) == (one["planted"], 0, 1.0, 1.0)


def test_what_is_off_is_not_looked_for(tmp_path: Path, letters: Any, recipe: Make) -> None:
    made = planted_texts(100, 5)
    write(made.train, tmp_path / "train.jsonl")
    write(made.test, tmp_path / "test.jsonl")
    (tmp_path / "faults.csv").write_text(listed(made) + "train,1,mislabelled\n")
    wanted = recipe(
        train="train.jsonl", test="test.jsonl", known_faults="faults.csv", leakage="off", clean={"near_duplicates": "off"}
    )
    found = prepare(wanted, letters, output_dir=str(tmp_path / "runs")).manifest["care"]["known_faults"]
    assert [kind for kind, one in found.items() if one["found"] is None] == [
        "near-duplicate",
        "mislabelled",
        "leak",
        "near-leak",
    ]


def test_mislabelled_rows_that_are_split_off_were_not_looked_at(tmp_path: Path, letters: Any, recipe: Make) -> None:
    words = Words(3)
    rows = [words.row() for _ in range(300)]
    wrong = np.random.default_rng(0).choice(300, 30, replace=False).tolist()
    for k in wrong:
        rows[k]["label"] = f"class {(int(rows[k]['label'][-1]) + 1) % 4}"
    write(rows, tmp_path / "a.jsonl")
    (tmp_path / "faults.csv").write_text("split,row,fault\n" + "".join(f"train,{k + 1},mislabelled\n" for k in wrong))
    data = prepare(
        recipe(train="a.jsonl", known_faults="faults.csv", label_errors="report"), letters, output_dir=str(tmp_path / "runs")
    )
    texts = {example["text"] for example in data.splits["train"].examples()}
    seen = {k for k in wrong if rows[k]["text"] in texts}
    entry = data.manifest["care"]["known_faults"]["mislabelled"]
    audit = data.manifest["care"]["label_errors"]
    suspects = {one["row"] - 1 for one in audit["examples"]}
    assert 0 < len(seen) < 30
    assert (entry["planted"], entry["looked_at"]) == (30, len(seen))
    assert (entry["found"], entry["by_mistake"]) == (len(seen & suspects), len(suspects - seen))
    first = {one["row"] - 1 for one in audit["examples"][: 2 * len(seen)]}
    assert entry["in_first_2k"] == pytest.approx(len(seen & first) / len(seen), abs=1e-4)


def test_images_are_named_by_their_files(tmp_path: Path) -> None:
    made = planted_digits(4)
    faults = ["split,row,fault,of"]
    for split, rows in (("train", [*made.train[:60], made.train[7], made.train[8]]), ("test", [*made.test[:9], made.train[3]])):
        (tmp_path / split).mkdir()
        lines = ["file_name,label"]
        for number, row in enumerate(rows):
            (tmp_path / split / f"{number}.png").write_bytes(row["image"])
            lines.append(f"{number}.png,{row['label']}")
        (tmp_path / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    faults += ["train,7.png,duplicate,60.png", "train,train/61.png,duplicate,8.png", "test,metadata.csv:11,leak,"]
    (tmp_path / "faults.csv").write_text("\n".join(faults) + "\n")
    found = prepared_images(tmp_path, train="train", test="test", known_faults="faults.csv", leakage="report")
    assert {kind: (one["found"], one["by_mistake"]) for kind, one in found.items()} == {"duplicate": (2, 0), "leak": (1, 0)}


def prepared_images(folder: Path, **data: Any) -> Any:
    model = folder / "model"
    model.mkdir()
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    (model / "preprocessor_config.json").write_text(json.dumps(processor))
    (model / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": {"0": "a", "1": "b"}}))
    values = {"task": "image-classification", "model": {"model_name_or_path": str(model)}, "data": data}
    recipe = Recipe.from_dict(values, base_dir=folder, check_paths=False)
    return prepare(recipe, load_task(recipe.task), output_dir=str(folder / "runs")).manifest["care"]["known_faults"]


def test_a_row_that_is_not_there_or_could_be_several_is_told_with_its_line(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for number in range(20):
            pixels = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / kind / f"{number}.png")
    text = "split,row,fault\ntrain,41,duplicate\ntrain,a/3.png,conflict\ntrain,3.png,conflict\ntrain,b/20.png,conflict\n"
    (tmp_path / "faults.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        prepared_images(tmp_path, train="train", known_faults="faults.csv")
    said = str(caught.value)
    assert "line 2: data.train has no usable row '41'" in said
    assert "line 4: '3.png' could be any of 2 rows of data.train" in said
    assert "line 5: data.train has no usable row 'b/20.png'" in said
    assert "line 3" not in said
    assert "→ Name a row by its line" in said


def test_a_changed_list_is_counted_anew_and_other_data_has_none(tmp_path: Path, letters: Any, recipe: Make) -> None:
    write([{"text": f"text number {k % 50}", "label": "ab"[k % 2]} for k in range(60)], tmp_path / "a.jsonl")
    faults = tmp_path / "faults.csv"
    faults.write_text("split,row,fault\ntrain,51,duplicate\n")
    wanted = recipe(train="a.jsonl", known_faults="faults.csv")
    first = prepare(wanted, letters, output_dir=str(tmp_path / "runs"))
    assert first.manifest["care"]["known_faults"]["duplicate"]["found"] == 1
    assert prepare(wanted, letters, output_dir=str(tmp_path / "runs")).path == first.path
    faults.write_text("split,row,fault\ntrain,51,duplicate\ntrain,1,duplicate\n")
    again = prepare(wanted, letters, output_dir=str(tmp_path / "runs")).manifest["care"]["known_faults"]["duplicate"]
    assert (again["planted"], again["found"]) == (2, 1)
    other = prepare_frozen(
        wanted, letters, Preprocessing(first.state, None), str(tmp_path / "a.jsonl"), output_dir=str(tmp_path / "runs")
    )
    assert "known_faults" not in other.manifest["care"]
    faults.unlink()
    with pytest.raises(DataError, match=r"data\.known_faults: .*faults\.csv does not exist"):
        prepare(wanted, letters, output_dir=str(tmp_path / "runs"))
