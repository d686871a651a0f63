"""Data sets with names and weights: what a recipe may say of them, and how every mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.cluster.packing import pack
from tunesmith.recipe import Recipe
from tunesmith.recipe.data import domains_of, weights_of
from tunesmith.recipe.paths import places_of
from tunesmith.verbs.validate import annotated, summary

HEAD = """\
task: text-classification
model:
  model_name_or_path: google-bert/bert-base-uncased
data:
  train:
    - {name: clinic, path: train.csv, weight: 2}
    - {name: lab, path: [train.csv, train.csv]}
"""
Write = Callable[..., Path]
Mistakes = Callable[..., list[str]]


def data(train: str, more: str = "") -> str:
    return HEAD.partition("  train:")[0] + f"  train: {train}\n{more}"


def test_names_and_weights_are_read_and_paths_made_absolute(write: Write, tmp_path: Path) -> None:
    recipe = Recipe.load(write(head=HEAD)).resolved()
    named = domains_of(recipe.data.train)
    assert [(one.name, one.weight) for one in named] == [("clinic", 2.0), ("lab", None)]
    assert [path for _, path in places_of(recipe.data.train)] == [str(tmp_path / "train.csv")] * 3
    assert weights_of(recipe.data.train) == {"clinic": 2.0, "lab": 1.0}


def test_it_survives_being_written_and_read_again(write: Write, tmp_path: Path) -> None:
    recipe = Recipe.load(write(head=HEAD))
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = Recipe.load(tmp_path / "again.yaml")
    assert (
        again.data == recipe.resolved().data.model_copy(update={"cache_dir": None})
        or again.fingerprint() == recipe.fingerprint()
    )
    assert again.fingerprint() == recipe.fingerprint()
    assert recipe.override("training.seed=7").data.train == recipe.data.train
    assert Recipe.from_dict({**recipe.model_dump(exclude_unset=True)}).fingerprint("task") == recipe.fingerprint("task")


def test_plain_data_sets_have_neither(write: Write) -> None:
    recipe = Recipe.load(write(), ["data.train=[train.csv, train.csv]"])
    assert recipe.data.train == [str(Path.cwd() / "train.csv")] * 2
    assert domains_of(recipe.data.train) == []
    assert weights_of(recipe.data.train) is None


def test_a_number_is_a_name_as_it_is_written(write: Write) -> None:
    recipe = Recipe.load(write(head=data("[{name: 2019, path: train.csv}, {name: 010, path: train.csv}]")))
    assert [one.name for one in domains_of(recipe.data.train)] == ["2019", "010"]


def test_validate_says_the_shares(write: Write) -> None:
    recipe = Recipe.load(write(head=HEAD)).resolved()
    assert "domains clinic 67%, lab 33%, 10% for validation" in summary(recipe, "recipe.yaml")
    plain = Recipe.load(write(head=HEAD.replace(", weight: 2", ""))).resolved()
    assert "domains clinic, lab, 10%" in summary(plain, "recipe.yaml")
    assert "train: [{name: clinic, path: " in annotated(recipe)


def test_its_files_travel_with_a_job(write: Write, tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text("text,label\n")
    write(head=HEAD.replace("[train.csv, train.csv]", "lab.csv"))
    there = tmp_path / "packed"
    pack(["train", "recipe.yaml", "training.output_dir=/shared/runs"], there)
    assert {file.name for file in there.rglob("*.csv")} == {"train.csv", "lab.csv"}


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("[{name: a, path: train.csv}, {name: a, path: train.csv}]", "two data sets are called a, this one and data.train[0]"),
        ("[{name: a, path: train.csv, weight: 0}, {name: b, path: train.csv}]", "found 0, which is not a number above 0"),
        ("[{name: a, path: train.csv, weight: -1}, {name: b, path: train.csv}]", "found -1, which is not a number above 0"),
        ("[{name: a, path: train.csv, weight: .nan}, {name: b, path: train.csv}]", "found nan, which is not a number above 0"),
        ("[{name: a, path: train.csv, weight: .inf}, {name: b, path: train.csv}]", "found inf, which is not a number above 0"),
        ("[{name: a, path: train.csv, weight: true}, {name: b, path: train.csv}]", "found true, which is not a number above 0"),
        ("[{name: a, path: train.csv, weight: 30 %}, {name: b, path: train.csv}]", "write 0.3"),
        ("[{name: a, path: train.csv, weight: 2}]", "there is no other domain to share the draws with"),
        (
            "[train.csv, {name: b, path: train.csv}]",
            "data sets with and without names are mixed\n    → give each of them a name",
        ),
        ("{name: a, path: train.csv}", "a data set with a name stands in a list\n    → put a dash before it"),
        ("[{name: a, path: train.csv, wieght: 2}]", "a data set has no 'wieght'\n    → did you mean weight?"),
        ("[{path: train.csv}]", "data.train[0].name: the data set has no name\n    → add name"),
        ("[{name: a}]", "data.train[0].path: the data set has no path"),
        ("[{name: a/b, path: train.csv}]", "found 'a/b', which is no name for a domain"),
        ("[{name: '', path: train.csv}]", "which is no name for a domain"),
        ("[{name: (missing), path: train.csv}]", "such as missing"),
        ("[{name: a, path: trian.csv}]", "data.train[0].path: "),
        ("[{name: a, path: []}]", "found []"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_fix(mistakes: Mistakes, train: str, words: str) -> None:
    (found,) = mistakes(head=data(train))
    assert words in found
    assert found.startswith("recipe.yaml:5: data.train")
    assert "→" in found


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_weight_of_rows_that_are_only_judged_is_refused_with_the_reason(mistakes: Mistakes, split: str) -> None:
    (found,) = mistakes(f"  {split}:\n    - {{name: lab, path: train.csv, weight: 2}}\n", head=HEAD)
    assert f"recipe.yaml:9: data.{split}[0].weight: every row of {split} is judged once" in found


def test_every_mistake_is_told_at_once(mistakes: Mistakes) -> None:
    train = "[{name: a, path: train.csv, weight: 0}, {name: b c, path: train.csv}]"
    assert len(mistakes(head=data(train))) == 2


def test_what_counts_as_in_domain_must_be_there(mistakes: Mistakes) -> None:
    (found,) = mistakes("evaluation: {in_domain: [clinc]}\n", head=HEAD)
    assert "evaluation.in_domain[0]: no data set is called clinc" in found
    assert "did you mean clinic?" in found
