"""Turns the splits that were given into train, validation and test: the missing ones are cut off ``train``, once."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from tunesmith.data import rows, split
from tunesmith.data.care import groups as codes
from tunesmith.data.care.together import together, without_copies
from tunesmith.data.care.treat import Treated
from tunesmith.data.ingest import Ingested
from tunesmith.errors import DataError, nearest
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


def method(data: DataSection, train: Ingested) -> str:
    """What ``data.split.by: auto`` comes to."""
    if data.split.by != "auto":
        return data.split.by
    if data.split.group:
        return "group"
    if data.split.time:
        return "time"
    return "stratified" if train.strata is not None else "random"


def _cut(data: DataSection, treated: Treated, shares: Mapping[str, float]) -> split.Splits:
    """The splits as places in the rows of ``train`` that stay."""
    train, chosen = treated.given["train"], treated.kept["train"]
    by, seed = method(data, train), data.split.seed
    alike = _alike(data, treated, shares)
    if by == "group":
        return _by_group(_groups(data, train)[chosen], alike, shares, seed)
    if by == "time":
        found = split.by_time(_times(data, train)[chosen], shares)
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


def _groups(data: DataSection, train: Ingested) -> np.ndarray:
    """A code for each row's group."""
    column = _column(train, data.split.group, "group")
    if column.null_count:
        raise _no_value(train, column, "group", str(data.split.group))
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _times(data: DataSection, train: Ingested) -> np.ndarray:
    """Each row's time as a number that orders them."""
    column = _column(train, data.split.time, "time")
    if column.null_count:
        raise _no_value(train, column, "time", str(data.split.time))
    numbers, bad = moments_of(column)
    if len(bad):
        shown = "; ".join(f"{_where(train, int(i))}: {column[int(i)].as_py()!r}" for i in bad[:10])
        raise DataError(
            f"data.split.time: {len(bad)} values of the column {data.split.time!r} are no times: {shown}"
            "\n    → Write them as ISO 8601 (2026-01-31 or 2026-01-31T12:00:00), or as numbers."
        )
    return numbers


def moments_of(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Times as numbers that order them ``[n]``, and the indices of those that are none."""
    kind, empty = column.type, np.flatnonzero(np.asarray(column.is_null()))
    if types.is_temporal(kind):
        whole = column.cast(pa.timestamp("us") if not types.is_time(kind) else kind).cast(pa.int64())
        return np.asarray(whole.fill_null(0)), empty
    if types.is_integer(kind) or types.is_floating(kind):
        numbers = np.asarray(column.fill_null(0))
        return numbers, np.union1d(empty, np.flatnonzero(~np.isfinite(numbers.astype(np.float64))))
    filled = np.flatnonzero(~np.asarray(column.is_null()))
    numbers, bad = _parsed(column.take(pa.array(filled)).to_pylist())
    whole = np.zeros(len(column), numbers.dtype)
    whole[filled] = numbers
    return whole, np.union1d(empty, filled[bad])


def is_number(column: pa.ChunkedArray) -> bool:
    """Whether times are written as numbers, of whatever unit, rather than as moments."""
    if types.is_temporal(column.type):
        return False
    try:
        return all(value is None or np.isfinite(float(value)) for value in column.to_pylist())
    except (TypeError, ValueError):
        return False


def _parsed(texts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Texts as numbers where all are numbers, else as ISO 8601 moments (UTC where no zone is said); and which are neither."""
    try:
        numbers = np.array([float(text) for text in texts])
        return numbers, np.flatnonzero(~np.isfinite(numbers))
    except (TypeError, ValueError):
        pass
    moments = np.zeros(len(texts), dtype=np.int64)
    bad = []
    for index, text in enumerate(texts):
        try:
            moment = dt.datetime.fromisoformat(str(text).strip())
        except ValueError:
            bad.append(index)
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        moments[index] = (moment - _EPOCH) // dt.timedelta(microseconds=1)
    return moments, np.asarray(bad, dtype=np.int64)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _column(train: Ingested, name: str | None, what: str) -> pa.ChunkedArray:
    """A column of the user's data by its own name, also where it is a role."""
    if name is None:
        raise DataError(f"data.split.by: {what} needs to know the column\n    → Set data.split.{what}.")
    role = next((role for role, column in train.mapping.items() if column == name), None)
    kept = role or (name if name in train.schema.names else f"{name}_")
    known = [n for n in train.schema.names if n not in rows.OWN]
    if kept not in known:
        close = nearest(name, known)
        hint = f"Did you mean {close!r}? " if close else ""
        raise DataError(
            f"data.split.{what}: data.train has no column {name!r}\n    → {hint}Its columns are {', '.join(known)}."
        )
    return train.column(kept)


def _no_value(train: Ingested, column: pa.ChunkedArray, what: str, name: str) -> DataError:
    empty = np.flatnonzero(np.asarray(column.is_null()))
    shown = "; ".join(_where(train, int(i)) for i in empty[:10])
    return DataError(
        f"data.split.{what}: {len(empty)} rows have no value in the column {name!r}: {shown}"
        "\n    → Fill them in, or remove these rows: without it they cannot be kept on one side."
    )


def _where(train: Ingested, index: int) -> str:
    """File and row of a good row, for messages."""
    file = train.files[train.column(rows.FILE)[index].as_py()]
    return f"{file} row {train.column(rows.ROW)[index].as_py()}"
