"""Splits that never part a group: a split is made as ever, then groups are put on one side and single rows make up for it.

Without groups of several rows nothing changes, so data without duplicates is split as it would be without care.
"""

from __future__ import annotations

import numpy as np

from tunesmith.data.care import groups as codes
from tunesmith.data.split import Splits
from tunesmith.errors import DataError


def together(found: Splits, groups: np.ndarray, strata: np.ndarray | None, seed: int) -> Splits:
    """The splits with each group (equal ``groups`` ``[n]``) in one of them, sizes and class shares kept as far as that allows.

    A group goes where its first row was drawn; one of more than half the rows of the smallest split to be cut off goes to
    ``train``, and so does one that holds the last rows of a class. Then rows without a group are exchanged, drawn by ``seed``,
    until each split has as many rows of each class (``strata`` ``[n]``) as before. Raises :class:`DataError` where a split has
    no row left.
    """
    groups = codes.codes_of(groups)
    several = codes.sizes(groups) > 1
    if not several.any():
        return found
    names = list(found)
    before = np.zeros(len(groups), dtype=np.int64)
    for index, name in enumerate(names):
        before[found[name]] = index
    classes = codes.codes_of(strata) if strata is not None else np.zeros(len(groups), dtype=np.int64)
    train = names.index("train")
    home = _grouped(before, groups, train, min(len(rows) for name, rows in found.items() if name != "train") // 2)
    _keep_classes(home, before, groups, classes, train)
    singles = np.flatnonzero(~several)
    singles = np.random.default_rng(seed).permutation(singles)
    for kinds in (classes, np.zeros_like(classes)):  # the shares of each class first, then what is missing in all
        _exchange(home, before, kinds, singles, len(names))
        if strata is not None:
            _keep_classes(home, before, groups, classes, train)
    result = {name: np.flatnonzero(home == index) for index, name in enumerate(names)}
    empty = next((name for name, rows in result.items() if not len(rows)), None)
    if empty is not None:
        raise DataError(
            f"{len(groups)} rows in {len(np.unique(groups))} groups of duplicates are too few for the splits {', '.join(names)}"
            f": nothing is left for {empty}\n    → Give more rows, set data.clean.duplicates: drop, or data.leakage: report, "
            "which parts duplicates."
        )
    return result


def _grouped(before: np.ndarray, groups: np.ndarray, train: int, largest: int) -> np.ndarray:
    """The split of each row when its group follows its first row."""
    first = np.unique(groups, return_index=True)[1]
    home: np.ndarray = before[first][groups]
    home[codes.sizes(groups) > max(1, largest)] = train
    single = codes.sizes(groups) == 1
    home[single] = before[single]
    return home


def _keep_classes(home: np.ndarray, before: np.ndarray, groups: np.ndarray, classes: np.ndarray, train: int) -> None:
    """Groups go back to ``train`` where it would lack a class that it had."""
    had = np.unique(classes[before == train])
    lacking = np.setdiff1d(had, classes[home == train])
    for kind in lacking:
        row = np.flatnonzero(classes == kind)[0]
        home[groups == groups[row]] = train


def _exchange(home: np.ndarray, wanted: np.ndarray, kinds: np.ndarray, singles: np.ndarray, count: int) -> None:
    """Moves single rows, in their order, until each split has as many of each kind as in ``wanted``, or none is left."""
    size = int(kinds.max()) + 1
    wants, has = (np.bincount(kinds * count + where, minlength=size * count) for where in (wanted, home))
    missing = (wants - has).reshape(size, count)
    unbalanced = np.flatnonzero(missing.any(axis=1))
    pool = singles[np.isin(kinds[singles], unbalanced)]
    for kind in unbalanced:
        of_kind = pool[kinds[pool] == kind]
        moving = [of_kind[home[of_kind] == split][: max(0, -missing[kind, split])] for split in range(count)]
        free = np.concatenate(moving)
        start = 0
        for split in np.argsort(-missing[kind], kind="stable"):
            more = max(0, int(missing[kind, split]))
            home[free[start : start + more]] = split
            start += more


def without_copies(found: Splits, groups: np.ndarray) -> tuple[Splits, np.ndarray]:
    """The splits without the rows whose group stands in an earlier one, and those rows: for splits whose order must stay."""
    seen = np.zeros(0, dtype=groups.dtype)
    kept, gone = {}, []
    for name, rows in found.items():
        copy = np.isin(groups[rows], seen)
        kept[name] = rows[~copy]
        gone.append(rows[copy])
        seen = np.union1d(seen, groups[rows])
        if not len(kept[name]):
            raise DataError(
                f"every row of the {name} split is a copy of an earlier one\n    → Set data.clean.duplicates: drop, give more "
                "rows, or set data.leakage: report (they stay)."
            )
    return kept, np.concatenate(gone)
