"""Splits hold every row once, never part a group, keep time's order and each class's share, and repeat with the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunesmith.data import split
from tunesmith.errors import DataError

SHARES = st.fixed_dictionaries(
    {"validation": st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.4]), "test": st.sampled_from([0.0, 0.1, 0.2, 0.35])}
)
SEEDS = st.integers(0, 2**31)
pytestmark = pytest.mark.unit


def complete(found: split.Splits, n: int) -> bool:
    rows = np.concatenate(list(found.values()))
    ordered = all(bool((np.diff(part) > 0).all()) for part in found.values())
    return ordered and len(rows) == n and set(rows.tolist()) == set(range(n)) and all(len(part) for part in found.values())


def same(one: split.Splits, other: split.Splits) -> bool:
    return split.indices_hash(one) == split.indices_hash(other)


@given(n=st.integers(8, 400), shares=SHARES, seed=SEEDS)
def test_random_splits_are_complete_and_repeat(n: int, shares: dict[str, float], seed: int) -> None:
    found = split.random(n, shares, seed)
    assert complete(found, n)
    assert same(found, split.random(n, shares, seed))
    for name, share in shares.items():
        assert (name in found) == (share > 0)
        if share:
            assert abs(len(found[name]) - n * share) <= 1


@given(strata=st.lists(st.integers(0, 4), min_size=12, max_size=300).map(np.array), shares=SHARES, seed=SEEDS)
def test_stratified_splits_keep_each_class_to_within_a_row(strata: np.ndarray, shares: dict[str, float], seed: int) -> None:
    try:
        found = split.stratified(strata, shares, seed)
    except DataError:
        assume(False)
    assert complete(found, len(strata))
    assert same(found, split.stratified(strata, shares, seed))
    for code in np.unique(strata):
        size = (strata == code).sum()
        assert (strata[found["train"]] == code).any(), "training lacks a class"
        for name in found.keys() - {"train"}:
            got = (strata[found[name]] == code).sum()
            assert got <= size * shares[name] + 1
            left_for_this = size - 1 - sum((strata[found[o]] == code).sum() for o in found.keys() - {"train", name})
            assert got >= min(size * shares[name] - 1, left_for_this)


@given(groups=st.lists(st.integers(0, 30), min_size=10, max_size=300).map(np.array), shares=SHARES, seed=SEEDS)
def test_a_group_is_never_on_both_sides(groups: np.ndarray, shares: dict[str, float], seed: int) -> None:
    assume(len(np.unique(groups)) >= 3)
    found = split.grouped(groups, shares, seed)
    assert complete(found, len(groups))
    assert same(found, split.grouped(groups, shares, seed))
    sets = [set(groups[rows].tolist()) for rows in found.values()]
    assert sum(map(len, sets)) == len(set(groups.tolist()))


def test_many_small_groups_meet_the_shares() -> None:
    groups = np.random.default_rng(0).integers(0, 300, 3000)
    found = split.grouped(groups, {"validation": 0.1, "test": 0.2}, seed=5)
    assert abs(len(found["validation"]) - 300) <= 20
    assert abs(len(found["test"]) - 600) <= 20


@given(times=st.lists(st.integers(0, 60), min_size=10, max_size=300).map(np.array), shares=SHARES)
def test_time_splits_are_ordered_and_keep_ties_together(times: np.ndarray, shares: dict[str, float]) -> None:
    assume(len(np.unique(times)) >= 3)
    found = split.by_time(times, shares)
    assert complete(found, len(times))
    ordered = [times[found[name]] for name in ("train", "validation", "test") if name in found]
    for earlier, later in itertools.pairwise(ordered):
        assert earlier.max() < later.min()


def test_time_splits_meet_the_shares_where_times_differ() -> None:
    times = np.random.default_rng(0).permutation(1000)
    found = split.by_time(times, {"validation": 0.1, "test": 0.2})
    assert [len(found[name]) for name in ("train", "validation", "test")] == [700, 100, 200]
    assert times[found["test"]].min() == 800


@settings(max_examples=50)
@given(strata=st.lists(st.integers(0, 4), min_size=2, max_size=200).map(np.array), size=st.integers(1, 250), seed=SEEDS)
def test_a_subset_has_the_size_asked_for_and_keeps_the_shares(strata: np.ndarray, size: int, seed: int) -> None:
    rows = split.subset(len(strata), size, strata, seed)
    wanted = min(size, len(strata))
    assert len(rows) == len(set(rows.tolist())) == wanted
    for code in np.unique(strata):
        share = (strata == code).sum() * wanted / len(strata)
        assert abs((strata[rows] == code).sum() - share) <= 1


def test_a_class_of_one_row_stays_in_train() -> None:
    found = split.stratified(np.array([0] * 50 + [1]), {"validation": 0.4, "test": 0.4}, seed=0)
    assert 50 in found["train"]
    assert split.absent(np.array([0] * 50 + [1]), found) == {"train": [], "validation": [1], "test": [1]}


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda: split.random(2, {"validation": 0.1, "test": 0.1}, 0), "2 rows are too few"),
        (lambda: split.stratified(np.arange(5), {"test": 0.2}, 0), "5 rows in 5 classes are too few"),
        (lambda: split.grouped(np.zeros(50), {"test": 0.2}, 0), "50 rows in 1 groups are too few"),
        (lambda: split.by_time(np.zeros(50), {"test": 0.2}), "50 rows at 1 different times are too few"),
        (lambda: split.random(50, {"validation": 0.5, "test": 0.5}, 0), "nothing to train on"),
    ],
)
def test_too_little_data_is_refused(cut: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        cut()  # type: ignore[operator]


def test_other_seeds_give_other_splits() -> None:
    assert not same(split.random(100, {"test": 0.2}, 1), split.random(100, {"test": 0.2}, 2))
    assert not same(split.grouped(np.arange(100), {"test": 0.2}, 1), split.grouped(np.arange(100), {"test": 0.2}, 2))
