"""Which row goes into which split: pure functions over arrays, seeded, the same on every machine.

Each returns a mapping from split name to sorted row indices (int64); together they hold every row once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from tunesmith.errors import DataError

Splits = dict[str, np.ndarray]
CUT = ("validation", "test")
"""Splits that are cut off, in the order of time."""

Shares = Mapping[str, float]
"""Share of the rows of each split to cut off, such as ``{"validation": 0.1, "test": 0.1}``; the rest is ``train``."""


def random(n: int, shares: Shares, seed: int) -> Splits:
    """Rows in random order, cut at the shares.

    >>> {name: len(rows) for name, rows in random(10, {"validation": 0.2, "test": 0.1}, seed=0).items()}
    {'train': 7, 'validation': 2, 'test': 1}
    >>> random(2, {"validation": 0.1, "test": 0.1}, seed=0)
    Traceback (most recent call last):
    ...
    tunesmith.errors.DataError: 2 rows are too few for the splits train, validation, test
        → Give more rows, or set the share of a split that you do not need to 0 (data.split.validation, data.split.test).
    """
    sizes = _sizes(n, shares)
    order = np.random.default_rng(seed).permutation(n)
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = np.sort(order[start : start + size])
        start += size
    return _with_train(n, found)


def stratified(strata: np.ndarray, shares: Shares, seed: int) -> Splits:
    """Each class keeps its share in each split, to within one row; a class's last row always stays in ``train``.

    ``strata`` ``[n]`` holds a class code for each row. Totals follow the shares by largest remainder.
    """
    n = len(strata)
    sizes = _sizes(n, shares)
    classes, codes = np.unique(strata, return_inverse=True)
    counts = np.bincount(codes, minlength=len(classes))
    room = np.maximum(counts - 1, 0)
    quotas = {}
    for name in reversed(sizes):  # the test split first: it must be the most representative
        quotas[name] = apportion(counts * shares[name], sizes[name], room)
        room = room - quotas[name]
    if any(not quota.sum() for quota in quotas.values()):
        raise _too_few(n, shares, f" in {len(classes)} classes")
    order = np.random.default_rng(seed).permutation(n)
    rank = np.empty(n, dtype=np.int64)
    rank[order] = rank_within(codes[order])
    found, taken = {}, np.zeros(len(classes), dtype=np.int64)
    for name in sizes:
        found[name] = np.flatnonzero((rank >= taken[codes]) & (rank < (taken + quotas[name])[codes]))
        taken = taken + quotas[name]
    return _with_train(n, found)


def grouped(groups: np.ndarray, shares: Shares, seed: int) -> Splits:
    """Rows of equal ``groups`` ``[n]`` stay together; groups, in random order, go where most rows are still missing.

    The shares are met to within the size of a group.
    """
    n = len(groups)
    sizes = _sizes(n, shares)
    names = ["train", *sizes]
    keys, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(keys) < len(names):
        raise _too_few(n, shares, f" in {len(keys)} groups")
    missing = np.array([n - sum(sizes.values()), *sizes.values()], dtype=np.int64)
    empty = np.ones(len(names), dtype=bool)
    home = np.empty(len(keys), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(keys))
    for done, key in enumerate(order):
        last_chance = len(keys) - done == empty.sum()
        split = int(np.where(empty, missing, missing.min() - 1).argmax() if last_chance else missing.argmax())
        home[key] = split
        missing[split] -= counts[key]
        empty[split] = False
    return {name: np.flatnonzero(home[codes] == index) for index, name in enumerate(names)}


def by_time(times: np.ndarray, shares: Shares) -> Splits:
    """The latest rows are ``test``, those before them ``validation``; rows of equal ``times`` ``[n]`` stay together."""
    n = len(times)
    sizes = _sizes(n, shares)
    moments, codes, counts = np.unique(times, return_inverse=True, return_counts=True)
    if len(moments) <= len(sizes):
        raise _too_few(n, shares, f" at {len(moments)} different times")
    first_rows = np.concatenate([[0], np.cumsum(counts)])[:-1]  # rows before each moment
    found, end, wanted = {}, len(moments), n
    for left, name in zip(range(len(sizes), 0, -1), reversed(sizes), strict=True):
        wanted -= sizes[name]
        cut = int(np.abs(first_rows[left:end] - wanted).argmin()) + left  # ``left`` moments remain for the splits before
        found[name] = np.flatnonzero((codes >= cut) & (codes < end))
        end = cut
    return _with_train(n, {name: found[name] for name in sizes})


def subset(n: int, size: int, strata: np.ndarray | None, seed: int) -> np.ndarray:
    """``size`` of ``n`` rows, sorted, drawn at random; each class keeps its share where ``strata`` ``[n]`` is given."""
    if size >= n:
        return np.arange(n)
    if strata is None:
        return np.sort(np.random.default_rng(seed).permutation(n)[:size])
    classes, codes = np.unique(strata, return_inverse=True)
    counts = np.bincount(codes, minlength=len(classes))
    quota = apportion(counts * (size / n), size, counts)
    order = np.random.default_rng(seed).permutation(n)
    rank = rank_within(codes[order])
    return np.sort(order[rank < quota[codes[order]]])


def per_class(strata: np.ndarray, size: int, seed: int) -> np.ndarray:
    """``size`` rows of each class of ``strata`` ``[n]``, sorted, drawn at random; all of a class that has fewer.

    >>> strata = np.array([0, 0, 0, 1, 1])
    >>> np.bincount(strata[per_class(strata, 2, seed=0)]).tolist()
    [2, 2]
    """
    order = np.random.default_rng(seed).permutation(len(strata))
    rank = rank_within(strata[order])
    return np.sort(order[rank < size])


def indices_hash(splits: Mapping[str, np.ndarray]) -> str:
    """BLAKE2b-128 over the names and the row indices, as hex."""
    digest = hashlib.blake2b(digest_size=16)
    for name, rows in splits.items():
        digest.update(f"{name}:{len(rows)};".encode())
        digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()


def absent(strata: np.ndarray, splits: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """For each split, the class codes of which it has no row."""
    every = np.unique(strata)
    return {name: [int(code) for code in np.setdiff1d(every, strata[rows])] for name, rows in splits.items()}


def _sizes(n: int, shares: Shares) -> dict[str, int]:
    """Rows of each split to cut off: the rounded share, at least one. Raises where ``train`` would be empty."""
    sizes = {name: max(1, round(n * shares[name])) for name in CUT if shares.get(name, 0) > 0}
    if sum(shares.values()) >= 1:
        raise DataError(
            f"the shares {dict(shares)} leave nothing to train on"
            "\n    → Make data.split.validation and data.split.test smaller: together they must be less than 1."
        )
    if n - sum(sizes.values()) < 1:
        raise _too_few(n, shares)
    return sizes


def apportion(exact: np.ndarray, total: int, room: np.ndarray) -> np.ndarray:
    """Whole numbers next to ``exact`` that sum to ``total`` as nearly as ``room`` allows: largest remainders first."""
    whole = np.floor(exact + 1e-9).astype(np.int64)
    quota: np.ndarray = np.minimum(whole, room)
    by_remainder = np.argsort(whole - exact, kind="stable")
    open_for_more = by_remainder[(quota < np.minimum(room, exact))[by_remainder]]
    quota[open_for_more[: max(0, total - int(quota.sum()))]] += 1
    return quota


def rank_within(codes: np.ndarray) -> np.ndarray:
    """How many earlier rows have the same code, for each row."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(codes) else np.zeros(0, np.int64)
    lengths = np.diff(np.concatenate([starts, [len(codes)]]))
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(starts, lengths)
    return rank


def _with_train(n: int, cut: Splits) -> Splits:
    """The splits with ``train``, which is every row that is in no other."""
    rest = np.ones(n, dtype=bool)
    for rows in cut.values():
        rest[rows] = False
    return {"train": np.flatnonzero(rest), **cut}


def _too_few(n: int, shares: Shares, how: str = "") -> DataError:
    names = ["train", *(name for name in CUT if shares.get(name, 0) > 0)]
    return DataError(
        f"{n} rows{how} are too few for the splits {', '.join(names)}"
        "\n    → Give more rows, or set the share of a split that you do not need to 0 "
        "(data.split.validation, data.split.test)."
    )
