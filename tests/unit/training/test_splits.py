"""Chosen examples of several splits are a split: the same examples, features and sizes as in the splits themselves."""

from __future__ import annotations

import numpy as np
import pytest

from support.data import MemorySplit, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.training.splits import chosen, joined

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemorySplit, MemorySplit]:
    folder = tmp_path_factory.mktemp("splits")
    recipe = recipe_for("text-classification", tiny_bert(folder / "base"), folder)
    spec, _ = prepare_in_memory(recipe, texts(40))
    rows = texts(30, seed=3)
    return tuple(MemorySplit(spec.task, part, spec.preprocessing) for part in (rows[:20], rows[20:]))  # type: ignore[return-value]


def test_chosen_examples_are_those_of_the_split(splits: tuple[MemorySplit, MemorySplit]) -> None:
    split, _ = splits
    found = chosen(split, np.array([3, 7, 19]))
    assert len(found) == 3
    assert found.examples([2, 0, 2]) == split.examples([19, 3, 19])
    assert found.features([1]) == split.features([7])
    assert found.lengths.tolist() == split.lengths[[3, 7, 19]].tolist()
    assert found.counts.tolist() == split.counts[[3, 7, 19]].tolist()
    assert found.examples([]) == []


def test_joined_splits_follow_each_other(splits: tuple[MemorySplit, MemorySplit]) -> None:
    one, other = splits
    both = joined(one, other)
    assert len(both) == 30
    assert both.lengths.tolist() == [*one.lengths, *other.lengths]
    assert both.examples([29, 0, 20, 19]) == [
        *other.examples([9]),
        *one.examples([0]),
        *other.examples([0]),
        *one.examples([19]),
    ]
    inner = chosen(both, np.array([25, 1]))
    assert inner.examples([0, 1]) == [*other.examples([5]), *one.examples([1])]
