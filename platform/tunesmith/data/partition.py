"""Turns the splits that were given into train, validation and test: the missing ones are cut off ``train``, once."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from tunesmith.data import split
from tunesmith.data.care import groups as codes
from tunesmith.data.care.together import together, without_copies
from tunesmith.data.care.treat import Treated
from tunesmith.data.ingest import Ingested
from tunesmith.data.split_columns import groups_of, method, times_of
from tunesmith.errors import DataError
from tunesmith.recipe.data import DataSection

log = logging.getLogger(__name__)

Made = dict[str, tuple[Ingested, np.ndarray]]


def partition(data: DataSection, treated: Treated) -> Made:
    """Each split with the rows it takes from which given one; ``train`` first. Raises :class:`DataError`.

    Rows that are the same, or nearly, come into one split unless ``data.leakage`` is ``report`` or ``off``.
    """
    given, kept = treated.given, treated.kept
    train = given["train"]
    shares = {
        name: share
        for name, share in (("validation", data.split.validation), ("test", data.split.test))
        if name not in given and share > 0
    }
    found = _cut(data, treated, shares) if shares else {"train": np.arange(len(kept["train"]))}
    made = {name: (train, kept["train"][places]) for name, places in found.items()}
    made.update({name: (one, kept[name]) for name, one in given.items() if name != "train"})
    return {name: made[name] for name in ("train", "validation", "test") if name in made}


def _cut(data: DataSection, treated: Treated, shares: Mapping[str, float]) -> split.Splits:
    """The splits as places in the rows of ``train`` that stay."""
    train, chosen = treated.given["train"], treated.kept["train"]
    by, seed = method(data, train), data.split.seed
    alike = _alike(data, treated, shares)
    if by == "group":
        return _by_group(groups_of(train, data.split.group)[chosen], alike, shares, seed)
    if by == "time":
        found = split.by_time(times_of(train, data.split.time)[chosen], shares)
        return found if alike is None else without_copies(found, treated.copies[chosen])[0]  # nearly the same may come again
    if by == "stratified":
        if train.strata is None:
            raise DataError("data.split.by: stratified needs rows with one class each\n    → Use random, group or time.")
        strata = train.strata[chosen]
        found, kinds = _by_kind(len(chosen), strata, _domains(train, chosen), shares, seed)
        found = found if alike is None else together(found, alike, kinds, seed)
        _tell_rare(train, strata, found)
        return found
    found, kinds = _by_kind(len(chosen), None, _domains(train, chosen), shares, seed)
    return found if alike is None else together(found, alike, kinds, seed)


def _domains(train: Ingested, chosen: np.ndarray) -> np.ndarray | None:
    """The domain code of each chosen row."""
    return train.domains.codes[chosen] if train.domains is not None else None


def _by_kind(
    n: int, strata: np.ndarray | None, domains: np.ndarray | None, shares: Mapping[str, float], seed: int
) -> tuple[split.Splits, np.ndarray | None]:
    """Splits in which classes keep their shares, and domains too where each has rows enough; and the codes that kept them."""
    alone = split.random(n, shares, seed) if strata is None else split.stratified(strata, shares, seed)
    if domains is None:
        return alone, strata
    kinds = domains if strata is None else codes.pair_codes(strata, domains)
    try:
        found = split.stratified(kinds, shares, seed)
    except DataError:
        return alone, strata
    whole = all(len(found[name]) == len(rows) for name, rows in alone.items())
    return (found, kinds) if whole else (alone, strata)


def _alike(data: DataSection, treated: Treated, shares: Mapping[str, float]) -> np.ndarray | None:
    """Codes of the rows that come into one split, for the rows of ``train`` that stay; None where that does not matter.

    A chain of near duplicates that is larger than a split to be cut off is a template rather than a copy: only its exact
    copies stay together.
    """
    if data.leakage in ("report", "off"):
        return None
    chosen = treated.kept["train"]
    near, copies = codes.codes_of(treated.near[chosen]), codes.codes_of(treated.copies[chosen])
    chained = codes.sizes(near) > max(2, round(len(chosen) * min(shares.values())))
    chained &= codes.sizes(copies) < codes.sizes(near)
    alike = codes.codes_of(np.where(chained, copies + len(chosen), near))
    treated.found["leakage"] |= {"kept_together": int((codes.sizes(alike) > 1).sum()), "parted": int(chained.sum())}
    return alike


def _by_group(groups: np.ndarray, alike: np.ndarray | None, shares: Mapping[str, float], seed: int) -> split.Splits:
    """Neither groups nor what is alike are parted; groups alone where that would leave too little to choose from."""
    if alike is None:
        return split.grouped(groups, shares, seed)
    joined = codes.merged(groups, alike)
    if codes.sizes(joined).max(initial=0) > (1 - sum(shares.values())) * len(groups):
        log.warning("copies join the groups of the column too far to keep both on one side: only the groups are kept together")
        joined = groups
    return split.grouped(joined, shares, seed)


def _tell_rare(train: Ingested, strata: np.ndarray, found: split.Splits) -> None:
    """Say which classes have too few rows to be in every split."""
    for name, lacking in split.absent(strata, found).items():
        if lacking:
            named = ", ".join(repr(train.classes[code]) for code in lacking[:10])
            more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
            log.warning("the %s split has no row of the class %s%s: too few rows to share out", name, named, more)
