"""Labels as text, counted, and in the order of the model's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.models import tiny_bert
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks import labels

pytestmark = pytest.mark.unit


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """A recipe over a base model that answers with ``own``."""

    def make(own: list[str] | None = None, **data: Any) -> Recipe:
        base = tiny_bert(tmp_path / "base", labels=own, layers=1)
        values = {"task": "text-classification", "model": {"model_name_or_path": str(base)}, "data": {"train": "a.csv", **data}}
        return Recipe.from_dict(values, check_paths=False)

    return make


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a", "a"),
        (" a ", "a"),
        ("", None),
        ("  ", None),
        (None, None),
        (float("nan"), None),
        (0, "0"),
        (2.0, "2"),
        (2.5, "2.5"),
        (False, "false"),
        (np.int64(3), "3"),
        (np.float64(3), "3"),
        (np.str_("x"), "x"),
        (float("inf"), "inf"),
    ],
)
def test_a_label_is_text_whatever_its_type(value: Any, name: str | None) -> None:
    assert labels.label_name(value) == name


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (["a", 1], ["a", "1"]),
        ((), []),
        ('["a", "b"]', ["a", "b"]),
        ("[a", ["[a"]),
        ("a, b", ["a, b"]),
        (None, None),
        (["a", None], None),
        (np.array([1, 2]), ["1", "2"]),
        (3, ["3"]),
        ("", None),
    ],
)
def test_several_labels_are_a_list_of_texts(value: Any, names: list[str] | None) -> None:
    assert labels.label_names(value) == names


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ('["a b", "c"]', ["a b", "c"]),
        ("[sic] yes", ["[sic]", "yes"]),
        (["a", 1], ["a", "1"]),
        (None, None),
        (7, None),
        (np.array(["x"]), ["x"]),
    ],
)
def test_words_are_a_list_or_split_at_spaces(value: Any, words: list[str] | None) -> None:
    assert labels.words(value) == words


def test_labels_are_sorted_and_numbers_by_value(recipe: Any) -> None:
    assert labels.freeze({"b": 1, "a": 2}, recipe()) == ["a", "b"]
    assert labels.freeze({"10": 1, "9": 1, "x": 1, "-1": 1}, recipe()) == ["-1", "9", "10", "x"]


def test_the_base_models_own_order_is_kept_where_it_has_the_same_labels(recipe: Any) -> None:
    assert labels.freeze({"neg": 3, "pos": 2}, recipe(["pos", "neg"])) == ["pos", "neg"]
    assert labels.freeze({"neg": 3, "other": 2}, recipe(["pos", "neg"])) == ["neg", "other"]


def test_declared_labels_decide_the_order_and_may_be_more(recipe: Any) -> None:
    assert labels.freeze({"a": 1}, recipe(["a", "b"], labels=["c", "a", "b"])) == ["c", "a", "b"]
    with pytest.raises(DataError, match=r"label 'spm' \(4 rows\), which data.labels does not name\n.*Did you mean 'spam'\?"):
        labels.freeze({"spm": 4, "ham": 1}, recipe(labels=["spam", "ham"]))


def test_one_class_is_nothing_to_tell_apart(recipe: Any) -> None:
    with pytest.raises(DataError, match=r"only the class 'a' \(7 rows\)"):
        labels.freeze({"a": 7}, recipe())
    with pytest.raises(DataError, match="no tag at all"):
        labels.freeze({}, recipe(), what="tag")


def test_an_unknown_label_brings_the_nearest(recipe: Any) -> None:
    state = {"labels": ["spam", "ham"]}
    assert labels.unknown(["spam", "ham"], state) is None
    told = labels.unknown(["ham", "spamm"], state)
    assert told == "label 'spamm' is not among the 2 labels of the training data (did you mean 'spam'?)"
    assert labels.unknown(["zzz"], state) == "label 'zzz' is not among the 2 labels of the training data"


def test_shares_are_those_of_the_rows() -> None:
    rows = [{"label": value} for value in ("a", "a", "b", 3)]
    assert labels.shares(rows, "label", ["b", "a", "3", "never"]) == [0.25, 0.5, 0.25, 0.0]
    assert labels.shares([], "label", ["a"]) == [0.0]
