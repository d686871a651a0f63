"""Named data sets: the domain of every row through preparation, what keeps its share, and what is refused."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.data.prepare import prepare, prepare_frozen
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Preprocessing

Make = Callable[..., PreparedData]


def rows(n: int, word: str, labels: str = "ab", start: int = 0) -> list[str]:
    return [f"{word} {chr(97 + k % 26)}{k * k} {word[::-1]}{k},{labels[k % len(labels)]}" for k in range(start, start + n)]


def write(path: Path, lines: list[str], head: str = "text,label") -> str:
    path.write_text("\n".join([head, *lines]) + "\n")
    return path.name


@pytest.fixture
def two(tmp_path: Path) -> list[dict[str, Any]]:
    """120 rows of a clinic, two classes alike; 40 of a lab, mostly one class."""
    clinic = write(tmp_path / "clinic.csv", rows(120, "ward"))
    lab = write(tmp_path / "lab.csv", rows(40, "probe", "aaab"))
    return [{"name": "clinic", "path": clinic}, {"name": "lab", "path": lab}]


@pytest.fixture
def made(recipe: Callable[..., Recipe], letters: Any, tmp_path: Path) -> Make:
    def make(train: Any, **data: Any) -> PreparedData:
        return prepare(recipe(train=train, **data), letters, output_dir=str(tmp_path / "runs"))

    return make


def of_domains(split: Split) -> dict[str, int]:
    assert split.domains is not None
    return split.domains.counts()


def test_every_row_keeps_its_domain(made: Make, two: list[dict[str, Any]]) -> None:
    prepared = made(two)
    for split in prepared.splits.values():
        assert split.domains is not None
        names = split.domains.column().to_pylist()
        for name, example in zip(names, split.examples(), strict=True):
            assert example["text"].startswith({"clinic": "ward", "lab": "probe"}[name])
        assert "__domain" not in split.rows().column_names
    stored = prepared.manifest["splits"]["train"]["domains"]
    assert {name: one["rows"] for name, one in stored.items()} == of_domains(prepared.splits["train"])
    assert sum(stored["lab"]["labels"].values()) == stored["lab"]["rows"]


def test_made_splits_keep_the_share_of_each_domain_and_class(made: Make, two: list[dict[str, Any]]) -> None:
    splits = made(two, split={"validation": 0.2, "test": 0.2}).splits
    for name, size in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        domains = splits[name].domains
        assert domains is not None
        found = Counter(zip(domains.column().to_pylist(), (e["label"] for e in splits[name].examples()), strict=True))
        for key, all_rows in {("clinic", "a"): 60, ("clinic", "b"): 60, ("lab", "a"): 30, ("lab", "b"): 10}.items():
            assert abs(found[key] - size * all_rows) <= 1, (name, key)
    random = made(two, split={"by": "random", "validation": 0.2, "test": 0.2}).splits
    assert of_domains(random["test"]) == {"clinic": 24, "lab": 8}


def test_too_few_rows_of_a_domain_leave_the_split_as_it_would_be(made: Make, two: list[dict[str, Any]], tmp_path: Path) -> None:
    few = [{"name": f"d{k}", "path": write(tmp_path / f"{k}.csv", rows(2, f"w{'xyz'[k % 3]}", start=7 * k))} for k in range(10)]
    splits = made(few, split={"validation": 0.2, "test": 0.2}).splits
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [12, 4, 4]


def test_weights_need_no_new_preparation_and_names_do(made: Make, two: list[dict[str, Any]]) -> None:
    weighed = [{**two[0], "weight": 3}, two[1]]
    renamed = [{**two[0], "name": "ward"}, two[1]]
    plain = made([one["path"] for one in two])
    assert made(two).path == made(weighed).path
    assert len({made(two).path, made(renamed).path, plain.path}) == 3
    assert plain.splits["train"].domains is None
    assert "domains" not in plain.manifest["splits"]["train"]
    assert plain.manifest["splits"]["train"]["source_hash"] == made(two).manifest["splits"]["train"]["source_hash"]


def test_fewer_training_rows_keep_each_domains_share(made: Make, two: list[dict[str, Any]]) -> None:
    assert of_domains(made(two, max_train_samples=32).splits["train"]) == {"clinic": 24, "lab": 8}
    few = made(two, few_shot={"per_class": 8}).splits["train"]
    assert Counter(e["label"] for e in few.examples()) == {"a": 8, "b": 8}
    found = of_domains(few)
    assert found["clinic"] > found["lab"] > 0


def test_a_domain_of_the_test_split_alone_is_fine(made: Make, two: list[dict[str, Any]], tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", rows(9, "field"))
    same = write(tmp_path / "same.csv", rows(8, "bed"))
    prepared = made(two, test=[{"name": "clinic", "path": same}, {"name": "outside", "path": other}])
    assert of_domains(prepared.splits["test"]) == {"clinic": 8, "outside": 9}
    assert of_domains(prepared.splits["train"]).keys() == {"clinic", "lab"}


def test_a_folder_brings_its_splits_under_its_name(
    made: Make, two: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "site").mkdir()
    write(tmp_path / "site" / "train.csv", rows(30, "hall"))
    write(tmp_path / "site" / "test.csv", rows(10, "door"))
    with caplog.at_level(logging.WARNING):
        prepared = made([{"name": "site", "path": "site"}, two[1]])
    assert of_domains(prepared.splits["test"]) == {"site": 10}
    assert "the test split is that of site: lab brings none" in caplog.text


def test_a_column_called_domain_stays_the_users(made: Make, tmp_path: Path) -> None:
    lines = [f"{line},x{k % 3},y" for k, line in enumerate(rows(60, "ward"))]
    path = write(tmp_path / "own.csv", lines, "text,label,domain,__domain")
    prepared = made([{"name": "one", "path": path}, {"name": "two", "path": write(tmp_path / "b.csv", rows(20, "lab"))}])
    table = prepared.splits["train"].rows()
    assert set(table["domain"].to_pylist()) == {"x0", "x1", "x2", None}
    assert set(table["__domain_"].to_pylist()) == {"y", None}
    assert prepared.splits["train"].domains is not None


def test_duplicates_across_domains_are_found_and_the_first_named_keeps_them(made: Make, tmp_path: Path) -> None:
    shared = rows(10, "ward")
    a = {"name": "a", "path": write(tmp_path / "a.csv", rows(40, "ward"))}
    b = {"name": "b", "path": write(tmp_path / "b.csv", [*shared, *rows(30, "probe")])}
    prepared = made([a, b], clean={"duplicates": "drop"})
    care = prepared.manifest["care"]
    assert care["duplicates"]["left_out"] == 10
    assert care["domains"]["shared"] == {"a & b": 10}
    assert {(one["domain"], one["of"]["domain"]) for one in care["duplicates"]["examples"]} == {("b", "a")}
    total = Counter[str]()
    for split in prepared.splits.values():
        total.update(of_domains(split))
    assert total == {"a": 40, "b": 30}
    with pytest.raises(DataError, match=r"data.train: no row of the domain c is left without duplicates"):
        made([a, {"name": "c", "path": write(tmp_path / "c.csv", shared)}], clean={"duplicates": "drop"})


def test_a_leak_between_domains_is_a_leak(made: Make, two: list[dict[str, Any]], tmp_path: Path) -> None:
    leaking = write(tmp_path / "t.csv", [*rows(5, "probe", "aaab"), *rows(5, "door")])
    test = [{"name": "clinic", "path": leaking}]
    with pytest.raises(DataError, match=r"data.test: 5 of 10 rows also stand in data.train, exactly"):
        made(two, test=test)
    moved = made(two, test=test, leakage="move")
    assert of_domains(moved.splits["test"]) == {"clinic": 5}


def test_near_copies_that_move_take_a_domain_that_train_has(made: Make, tmp_path: Path) -> None:
    long = [
        f"the patient of room {k} was seen by doctor number {k * 7} on the morning of day {k * k},{'ab'[k % 2]}"
        for k in range(40)
    ]
    near = [line.replace("morning", "mornings") for line in long[:4]]
    a = {"name": "a", "path": write(tmp_path / "a.csv", long)}
    b = {"name": "b", "path": write(tmp_path / "b.csv", rows(20, "probe"))}
    test = [{"name": "outside", "path": write(tmp_path / "t.csv", [*near, *rows(6, "door")])}]
    settings = {"clean": {"near_duplicates": "report", "similarity": 0.8}, "split": {"validation": 0.0}}
    prepared = made([b, a], test=test, leakage="move", **settings)
    moved = prepared.manifest["care"]["leakage"]["given"]["test"]["moved"]
    assert moved > 0
    assert of_domains(prepared.splits["train"]) == {"b": 20, "a": 40 + moved}
    assert of_domains(prepared.splits["test"]) == {"outside": 10 - moved}


@pytest.mark.parametrize(
    ("other", "head", "words"),
    [
        ([], "text,label", "data.train: the domain lab (other.csv) has no rows"),
        (["probe x,", "probe y,"], "text,label", "data.train: no row of the domain lab can be used\n"),
        (rows(9, "probe"), "text,verdict", "other.csv (domain lab) has no column for the role 'label'"),
        (
            [f"{line},x" for line in rows(9, "probe")],
            "text,label,pair",
            "lab has a column for the role 'pair', and the domain clinic",
        ),
        (
            rows(9, "probe", "xy"),
            "text,label",
            "clinic has the classes 'a', 'b', and shares none with the others, which have 'x', 'y'",
        ),
    ],
)
def test_a_domain_that_does_not_fit_is_refused_by_name(
    other: list[str], head: str, words: str, made: Make, two: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = write(tmp_path / "other.csv", other, head)
    with pytest.raises(DataError) as caught:
        made([two[0], {"name": "lab", "path": path}], on_bad_row="drop")
    assert words in str(caught.value)


def test_classes_that_only_some_domains_have_are_told(
    made: Make, two: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "other.csv", rows(30, "door", "aB"))
    with caplog.at_level(logging.WARNING):
        made([two[0], {"name": "door", "path": path}])
    assert "the domain clinic has no row of the class 'B'" in caplog.text
    assert "the domain door has no row of the class 'b' (is 'B' meant to be 'b'?)" in caplog.text


def test_declared_classes_may_differ_between_domains(made: Make, two: list[dict[str, Any]], tmp_path: Path) -> None:
    path = write(tmp_path / "other.csv", rows(30, "door", "xy"))
    prepared = made([two[0], {"name": "door", "path": path}], labels=["a", "b", "x", "y"])
    assert of_domains(prepared.splits["train"]).keys() == {"clinic", "door"}


def test_a_split_by_group_may_take_a_whole_domain_and_says_so(
    made: Make, two: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        [f"{line},{name}" for line in rows(n, word)]
        for name, word, n in (("x", "hall", 40), ("y", "door", 4), ("z", "gate", 8))
    ]
    sets = [{"name": f"d{k}", "path": write(tmp_path / f"g{k}.csv", one, "text,label,site")} for k, one in enumerate(lines)]
    with caplog.at_level(logging.WARNING):
        prepared = made(sets, split={"group": "site", "validation": 0.1, "test": 0.1})
    empty = [name for name, count in of_domains(prepared.splits["train"]).items() if not count]
    assert len(empty) == 2
    for name in empty:
        assert f"no row of the domain {name} is in the training split" in caplog.text


def test_a_test_domain_of_classes_that_training_lacks_is_refused(made: Make, two: list[dict[str, Any]], tmp_path: Path) -> None:
    test = [{"name": "lab", "path": write(tmp_path / "l.csv", rows(8, "bed"))}]
    test += [{"name": "outside", "path": write(tmp_path / "t.csv", rows(9, "field", "xy"))}]
    with pytest.raises(DataError, match=r"data.test: no row of the domain outside can be used\n9 of 177 rows"):
        made(two, test=test, on_bad_row="drop")


def test_other_data_has_domains_too(
    made: Make, two: list[dict[str, Any]], recipe: Callable[..., Recipe], letters: Any, tmp_path: Path
) -> None:
    prepared = made(two)
    other = write(tmp_path / "other.csv", rows(9, "field"))
    found = prepare_frozen(
        recipe(train=two),
        letters,
        Preprocessing(prepared.state),
        {"outside": other, "lab": "lab.csv"},
        output_dir=str(tmp_path / "runs"),
        base_dir=str(tmp_path),
    )
    assert of_domains(found.splits["test"]) == {"outside": 9, "lab": 40}


def test_codes_are_those_of_the_rows_that_could_be_encoded(made: Make, two: list[dict[str, Any]], tmp_path: Path) -> None:
    path = write(tmp_path / "other.csv", [*rows(10, "door"), "poison ☠ here,a", *rows(10, "gate")])
    prepared = made([{"name": "other", "path": path}, *two], on_bad_row="drop", split={"validation": 0.0, "test": 0.0})
    domains = prepared.splits["train"].domains
    assert domains is not None
    assert domains.counts() == {"other": 20, "clinic": 120, "lab": 40}
    assert np.array_equal(np.flatnonzero(domains.codes == 0), np.arange(20))
