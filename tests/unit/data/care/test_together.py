"""No split shares a group with another; sizes and class shares stay; data without groups is split as ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunesmith.data import split
from tunesmith.data.care.together import together, without_copies
from tunesmith.errors import DataError

pytestmark = pytest.mark.unit
SHARES = st.fixed_dictionaries({"validation": st.sampled_from([0.1, 0.25]), "test": st.sampled_from([0.1, 0.2])})
ROWS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=20, max_size=200)


def shared(found: split.Splits, groups: np.ndarray) -> bool:
    sets = [set(groups[rows].tolist()) for rows in found.values()]
    return sum(map(len, sets)) != len(set().union(*sets))


def complete(found: split.Splits, count: int) -> bool:
    return sorted(np.concatenate(list(found.values())).tolist()) == list(range(count))


@settings(max_examples=150)
@given(rows=ROWS, shares=SHARES, seed=st.integers(0, 1000), stratified=st.booleans())
def test_a_group_is_never_parted(rows: list[tuple[int, int]], shares: dict[str, float], seed: int, stratified: bool) -> None:
    groups, strata = (np.array(column) for column in zip(*rows, strict=True))
    try:
        before = split.stratified(strata, shares, seed) if stratified else split.random(len(rows), shares, seed)
        found = together(before, groups, strata if stratified else None, seed)
    except DataError:
        assume(False)
    assert complete(found, len(rows))
    assert not shared(found, groups)
    assert all(len(part) for part in found.values())
    if stratified:
        assert set(strata[before["train"]]) <= set(strata[found["train"]]), "train lost a class"


@given(count=st.integers(20, 200), shares=SHARES, seed=st.integers(0, 1000))
def test_rows_that_are_all_different_are_split_as_ever(count: int, shares: dict[str, float], seed: int) -> None:
    before = split.random(count, shares, seed)
    assert split.indices_hash(together(before, np.arange(count), None, seed)) == split.indices_hash(before)


def test_sizes_and_class_shares_stay_where_single_rows_can_make_up() -> None:
    rng = np.random.default_rng(0)
    strata = rng.integers(0, 4, 2000)
    groups = np.arange(2000)
    groups[rng.choice(2000, 300, replace=False)] = np.repeat(np.arange(2000, 2100), 3)
    before = split.stratified(strata, {"validation": 0.1, "test": 0.2}, 7)
    found = together(before, groups, strata, 7)
    assert not shared(found, groups)
    for name, part in before.items():
        assert np.bincount(strata[found[name]]).tolist() == np.bincount(strata[part]).tolist()
    parted = [set(groups[part]) & set(range(2000, 2100)) for part in found.values()]
    assert all(len(one) > 3 for one in parted), "groups are in every split"


def test_a_large_group_goes_to_train() -> None:
    groups = np.r_[np.zeros(60, int), np.arange(1, 141)]
    found = together(split.random(200, {"validation": 0.1, "test": 0.1}, 0), groups, None, 0)
    assert set(range(60)) <= set(found["train"].tolist())
    assert [len(part) for part in found.values()] == [160, 20, 20]


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"in 1 groups of duplicates are too few.*nothing is left for validation"):
        together(split.random(30, {"validation": 0.1, "test": 0.1}, 0), np.zeros(30, int), None, 0)


@given(rows=st.lists(st.integers(0, 60), min_size=30, max_size=100))
def test_copies_leave_the_later_splits(rows: list[int]) -> None:
    groups = np.array(rows)
    parts = np.array_split(np.arange(len(rows)), 3)
    before = dict(zip(("train", "validation", "test"), parts, strict=True))
    try:
        found, gone = without_copies(before, groups)
    except DataError:
        assume(False)
    assert not shared(found, groups)
    assert sorted([*gone.tolist(), *np.concatenate(list(found.values())).tolist()]) == list(range(len(rows)))
    assert found["train"].tolist() == before["train"].tolist()
