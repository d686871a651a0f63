"""Groups are the connected components of their pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.care import groups

pytestmark = pytest.mark.unit


def components(count: int, pairs: list[tuple[int, int]]) -> list[set[int]]:
    """By definition: sets are united pair by pair."""
    sets = [{row} for row in range(count)]
    for one, other in pairs:
        a, b = (next(s for s in sets if row in s) for row in (one, other))
        if a is not b:
            sets.remove(b)
            a |= b
    return sorted(sets, key=min)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_pairs_join_their_rows_by_chains(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = drawn
    codes = groups.joined(count, np.array(pairs, dtype=np.int64).reshape(-1, 2))
    found = [set(np.flatnonzero(codes == code).tolist()) for code in np.unique(codes)]
    assert sorted(found, key=min) == components(count, pairs)


def test_a_long_chain_takes_few_rounds() -> None:
    rows = np.random.default_rng(0).permutation(20_000)
    assert not groups.joined(20_000, np.stack([rows[:-1], rows[1:]], axis=1)).any()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_rows_that_share_either_code_are_merged(rows: list[tuple[int, int]]) -> None:
    one, other = (np.array(column) for column in zip(*rows, strict=True))
    codes = groups.merged(one, other)
    pairs = [(a, b) for a in range(len(rows)) for b in range(a) if one[a] == one[b] or other[a] == other[b]]
    found = [set(np.flatnonzero(codes == code).tolist()) for code in np.unique(codes)]
    assert sorted(found, key=min) == components(len(rows), pairs)


def test_repeats_sizes_and_pairs_of_codes() -> None:
    codes = np.array([3, 9, 3, 3, 9, 1])
    assert groups.repeated(codes).tolist() == [False, False, True, True, True, False]
    assert groups.sizes(groups.codes_of(codes)).tolist() == [3, 2, 3, 3, 2, 1]
    both = groups.pair_codes(codes, np.array([0, 0, 1, 0, 0, 5]))
    assert (both[0] == both[3], both[1] == both[4], len(np.unique(both))) == (True, True, 4)
