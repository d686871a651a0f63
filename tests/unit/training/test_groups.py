"""Groups treated alike: the weights by their formula, the draws counted, and what cannot be is refused with the nearest name.

That two ranks train as one, and a killed training as another, is shown for every task by the conformance suite.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from support.cases import CASES, write
from support.data import texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.data.old import OldPlaces
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError, RecipeError, UserError
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.tasks.weights import reweighing
from tunesmith.training.fit import FitData, FitSpec
from tunesmith.training.groups import WEIGHTS, example_weights, groups_of, weighed, with_weights
from tunesmith.training.precheck import check_training
from tunesmith.training.sampling import make_sampler
from tunesmith.training.spec import Groups

pytestmark = pytest.mark.unit

OF = np.array([0] * 60 + [1] * 20)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "base")


def made(base: Path, folder: Path, method: str, **training: Any) -> tuple[FitSpec, FitData]:
    """80 training rows: of group 0 every fourth is ``high``, of group 1 three of four."""
    recipe = recipe_for("text-classification", base, folder, **training)
    recipe = recipe.override(f"data.groups={{columns: [site], method: {method}}}")
    low, high = ([row for row in texts(400) if row["label"] == label] for label in ("low", "high"))
    rows = [(high if (k % 4 == 0) == (k < 60) else low)[k] for k in range(80)]
    spec, data = prepare_in_memory(recipe, rows + texts(16, seed=9))
    return spec, dataclasses.replace(data, groups=Groups(("a", "b"), OF))


def test_weights_are_the_formula_and_make_group_and_class_independent() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 500)
    classes = (rng.random(500) < np.array([0.2, 0.5, 0.9])[groups]).astype(int)
    weights = reweighing(groups, classes)
    for g, y in {*zip(groups.tolist(), classes.tolist(), strict=True)}:
        here = (groups == g) & (classes == y)
        expected = (groups == g).mean() * (classes == y).mean() / here.mean()
        np.testing.assert_allclose(weights[here], expected)
    assert weights.sum() == pytest.approx(500)
    shares = [np.average(classes[groups == g], weights=weights[groups == g]) for g in range(3)]
    np.testing.assert_allclose(shares, classes.mean())


def test_drawn_by_class_too_they_stay_independent() -> None:
    """Balanced sampling changes the classes' shares, and the weights go on making them the same in every group."""
    groups, classes = np.repeat([0, 0, 1, 1], [30, 10, 5, 15]), np.repeat([0, 1, 0, 1], [30, 10, 5, 15])
    weights = reweighing(groups, classes) / np.bincount(classes)[classes]
    table = np.zeros((2, 2))
    np.add.at(table, (groups, classes), weights)
    np.testing.assert_allclose(table / table.sum(), np.outer(table.sum(1), table.sum(0)) / table.sum() ** 2)


def test_each_example_of_a_batch_weighs_what_it_should_and_replayed_ones_one(base: Path, tmp_path: Path) -> None:
    spec, data = made(base, tmp_path, "reweigh")
    weights = example_weights(spec, data.train, data.groups)
    assert weights is not None
    make = with_weights(lambda epoch, indices, copies=(): {"labels": torch.tensor(list(indices))}, weights)
    batch = make(0, [3, 79, 80, 500])
    assert batch[WEIGHTS].tolist() == pytest.approx([*weights[[3, 79]], 1, 1])
    rest, criterion = weighed(batch, CrossEntropy())
    assert [*rest] == ["labels"]
    logits, targets = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(criterion(logits, targets), CrossEntropy()(logits, targets) * batch[WEIGHTS])
    assert weighed(rest, criterion) == (rest, criterion)


def test_every_epoch_has_each_group_equally_often(base: Path, tmp_path: Path) -> None:
    spec, data = made(base, tmp_path, "balanced")
    sampler = make_sampler(spec, data.train, groups=data.groups)
    for epoch in range(3):
        assert np.bincount(OF[sampler.draw(epoch)]).tolist() == [40, 40]
    assert example_weights(spec, data.train, data.groups) is None


def test_with_balanced_sampling_each_class_in_each_group(base: Path, tmp_path: Path) -> None:
    spec, data = made(base, tmp_path, "balanced", sampling="balanced")
    drawn = make_sampler(spec, data.train, groups=data.groups).draw(1)
    labels = [example["label"] for example in data.train.examples(drawn.tolist())]
    assert set(Counter(zip(OF[drawn].tolist(), labels, strict=True)).values()) == {20}


class Table:
    """A split's rows."""

    def __init__(self, **columns: list[Any]) -> None:
        self._table = pa.table(columns)

    def rows(self) -> pa.Table:
        return self._table


def asked(base: Path, folder: Path, *columns: str) -> Recipe:
    names = ", ".join(columns)
    return recipe_for("text-classification", base, folder).override(f"data.groups.columns=[{names}]")


def test_groups_are_values_together_numbers_in_quarters_and_the_missing(base: Path, tmp_path: Path) -> None:
    split = Table(sex=["f", "m", None, "f"] * 10, age=list(range(40)))
    found = groups_of(asked(base, tmp_path, "sex"), split)
    assert found is not None
    assert found.names == ("f", "(missing)", "m")
    assert np.bincount(found.codes).tolist() == [20, 10, 10]
    both = groups_of(asked(base, tmp_path, "sex", "age"), split)
    assert both is not None
    assert len(both.names) == 12
    assert "f, 0 to 9.75" in both.names


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"sexx": ["f"] * 300}, "no column 'sex'.\n.*Did you mean 'sexx'"),
        ({"sex": [f"name {k}" for k in range(300)]}, "sex make 300 groups .* 200 are the most"),
        ({"sex": ["f"] * 300}, "all training rows are of one group, f"),
    ],
)
def test_columns_that_make_no_groups_are_refused(base: Path, tmp_path: Path, columns: dict[str, list[str]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        groups_of(asked(base, tmp_path, "sex"), Table(**columns))


def test_a_mistyped_column_is_refused_before_training(tmp_path: Path) -> None:
    recipe = CASES["text"].recipe(tmp_path)
    write([{**row, "site": "ab"[k % 2]} for k, row in enumerate(texts(64))], tmp_path / "data")
    prepared = prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir)
    wrong = recipe.override("data.groups.columns=[sit]")
    with pytest.raises(DataError, match=r"data.groups.columns: .*'sit'.\n.*Did you mean 'site'"):
        check_training(wrong, load_task(recipe.task), prepared, OldPlaces())
    again = prepare(
        recipe.override("data.groups.columns=[site]"), load_task(recipe.task), output_dir=recipe.training.output_dir
    )
    assert again.path == prepared.path, "groups are no part of the prepared data"


def test_several_labels_cannot_be_reweighed(tmp_path: Path) -> None:
    recipe = CASES["multi-label"].recipe(tmp_path)
    write([{**row, "site": "ab"[k % 2]} for k, row in enumerate(CASES["multi-label"].rows(64))], tmp_path / "data")
    task, wrong = load_task(recipe.task), recipe.override("data.groups.columns=[site]")
    prepared = prepare(wrong, task, output_dir=recipe.training.output_dir)
    with pytest.raises(UserError, match=r"do not have one class each\n.*balanced"):
        check_training(wrong, task, prepared, OldPlaces())
    check_training(wrong.override("data.groups.method=balanced"), task, prepared, OldPlaces())


@pytest.mark.parametrize(
    ("task", "data", "words"),
    [
        ("text-classification", {"groups": {"columns": ["a", "a"]}}, "the column a is named twice"),
        ("text-classification", {"groups": {"method": "balanced"}}, "no column says what the groups are"),
        ("text-classification", {"groups": {"columns": ["a"]}, "unlabelled": {"data": "hf://a/c"}}, "keep no columns"),
        ("token-classification", {"groups": {"columns": ["a"]}}, "has more than one class"),
        (
            "image-classification",
            {"groups": {"columns": ["a"]}, "augment": [{"name": "mixup"}]},
            "mixup makes one example of two",
        ),
        (
            "text-classification",
            {"groups": {"columns": ["a"]}, "train": [{"name": k, "path": "hf://a/b", "weight": 2} for k in "xy"]},
            "the weights of data sets draw them otherwise",
        ),
        ("text-classification", {"groups": {"columns": ["a"], "method": "reweight"}}, "did you mean reweigh"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(task: str, data: dict[str, Any], words: str) -> None:
    values = {"task": task, "model": {"model_name_or_path": "a/b"}, "data": {"train": "hf://a/b", **data}}
    with pytest.raises(RecipeError, match=words):
        Recipe.from_dict(values)
