"""How many of the rows that the user knows to be bad data care found (``data.known_faults``).

Faults are counted by these rules, where a row is *flagged* if data care reports it as that kind of fault:

- ``duplicate``, ``near-duplicate``: which of several copies is flagged depends on their order. So rows that ``of`` joins are
  one group, and of a group as many are found as were flagged in it, but no more than were listed.
- ``conflict``: every row with the contradictory input is flagged; a row that stands behind ``of`` counts as listed.
- ``leak``, ``near-leak``: the row to judge by is flagged.
- ``mislabelled``: of the listed rows only those were looked at that the audit saw, and recall is over these.

Precision is the share of flagged rows that were found. It is right as far as the list is complete: a row that is flagged and
not listed may well be bad.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith import storage
from tunesmith.data import rows
from tunesmith.data.care import groups
from tunesmith.data.ingest import Ingested
from tunesmith.errors import DataError
from tunesmith.recipe.known_faults import FAULTS, Fault, Flaw, parse, told
from tunesmith.tasks.base import Task

JOINED = ("duplicate", "near-duplicate")
"""Faults of which either row may be flagged."""
WITH_OF = (*JOINED, "conflict")
"""Faults for which ``of`` is read."""


@dataclass(frozen=True)
class Known:
    """The rows of one kind of fault, numbered through over the given splits."""

    listed: np.ndarray
    """int64 ``[n]``, each once."""
    pairs: np.ndarray
    """int64 ``[pairs, 2]``: listed rows and what they were made from."""


@dataclass
class Flagged:
    """What one check of data care flagged, in the same numbering."""

    rows: np.ndarray
    looked_at: np.ndarray | None = None
    """The rows that it saw; None is all of them."""
    ranked: bool = False
    """Whether ``rows`` stand in the order of their likelihood."""


@dataclass
class Flags:
    """What every check flagged, by the kind of fault; a check that was not made has none."""

    by_kind: dict[str, Flagged] = field(default_factory=dict)

    def add(self, kind: str, more: np.ndarray) -> None:
        """Rows of another split."""
        before = self.by_kind.get(kind, Flagged(np.zeros(0, np.int64)))
        self.by_kind[kind] = Flagged(np.concatenate([before.rows, more]))


def read_list(place: str) -> str:
    """The text of a list. Raises :class:`DataError`."""
    try:
        return storage.read_text(place)
    except FileNotFoundError:
        raise DataError(f"data.known_faults: {place} does not exist\n    → Correct the path, or remove the key.") from None
    except UnicodeDecodeError:
        raise DataError(f"data.known_faults: {place} is not UTF-8 text\n    → Save the file as UTF-8.") from None


def read_known(place: str | None, task: Task, given: Mapping[str, Ingested]) -> dict[str, Known] | None:
    """The rows that the list at ``place`` names, by kind of fault; None where there is no list.

    Raises :class:`DataError` for a list that cannot be read and for rows that are not there, with the lines.
    """
    if place is None:
        return None
    faults, flaws = parse(read_list(place))
    finders = {name: _Finder(name, task, data) for name, data in given.items()}
    counts = [data.count for data in given.values()]
    starts = dict(zip(given, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
    listed: dict[str, dict[int, None]] = {kind: {} for kind in FAULTS}
    pairs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for fault in faults:
        if fault.split not in finders:
            flaws.append(Flaw(fault.line, f"data.{fault.split} is not given", "name rows of the splits that are given"))
            continue
        found = [_found(finders[fault.split], fault, name, flaws) for name in _names(fault)]
        if None in found:
            continue
        numbers = [starts[fault.split] + number for number in found if number is not None]
        listed[fault.kind][numbers[0]] = None
        if len(numbers) == 2:
            pairs[fault.kind].append((numbers[0], numbers[1]))
    if flaws:
        what, fix = told(place, flaws)
        raise DataError(f"data.known_faults: {what}\n    → {fix[0].upper()}{fix[1:]}.")
    return {
        kind: Known(np.array(list(chosen), np.int64), np.array(pairs[kind], np.int64).reshape(-1, 2))
        for kind, chosen in listed.items()
        if chosen
    }


def measured(known: Mapping[str, Known], flags: Flags) -> dict[str, dict[str, Any]]:
    """For each kind of fault what was planted, looked at, found and flagged by mistake, with precision and recall.

    A share of nothing is None, and so are all where the kind was not looked for. ``in_first_2k`` is the share of the k listed
    rows among the first 2k flagged ones, where those are ranked.
    """
    return {kind: _measured(kind, one, flags.by_kind.get(kind)) for kind, one in known.items()}


def _measured(kind: str, known: Known, flagged: Flagged | None) -> dict[str, Any]:
    listed = np.union1d(known.listed, known.pairs) if kind == "conflict" else known.listed
    if flagged is None:
        nothing = dict.fromkeys(("found", "by_mistake", "precision", "recall"))
        return {"planted": len(listed), "looked_at": 0, **nothing}
    seen = listed if flagged.looked_at is None else np.intersect1d(listed, flagged.looked_at)
    found = hits(seen, flagged.rows, known.pairs if kind in JOINED else known.pairs[:0])
    entry = {
        "planted": len(listed),
        "looked_at": len(seen),
        "found": found,
        "by_mistake": len(flagged.rows) - found,
        "precision": _share(found, len(flagged.rows)),
        "recall": _share(found, len(seen)),
    }
    if flagged.ranked:
        entry["in_first_2k"] = _share(hits(seen, flagged.rows[: 2 * len(seen)], known.pairs[:0]), len(seen))
    return entry


def hits(listed: np.ndarray, flagged: np.ndarray, pairs: np.ndarray) -> int:
    """How many of the ``listed`` rows were found: of each group that ``pairs`` join as many as were flagged.

    >>> hits(np.array([5, 6]), np.array([2, 5, 9]), np.array([[5, 2], [6, 2]]))  # of rows 2, 5 and 6 two are copies
    2
    >>> hits(np.array([5, 6]), np.array([2, 5, 9]), np.zeros((0, 2), int))  # rows by themselves
    1
    """
    members, codes = np.unique(np.concatenate([listed, flagged, pairs.ravel()]).astype(np.int64), return_inverse=True)
    ends = codes[len(listed) + len(flagged) :].reshape(-1, 2)
    group = groups.joined(len(members), ends)
    wanted = np.bincount(group[codes[: len(listed)]], minlength=len(members))
    had = np.bincount(group[codes[len(listed) : len(listed) + len(flagged)]], minlength=len(members))
    return int(np.minimum(wanted, had).sum())


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _names(fault: Fault) -> list[str]:
    return [fault.row, *([fault.of] if fault.of and fault.kind in WITH_OF else [])]


def _found(finder: _Finder, fault: Fault, name: str, flaws: list[Flaw]) -> int | None:
    """The row that is meant, or None and a flaw."""
    found = finder.rows(name)
    if len(found) == 1:
        return found[0]
    fix = "name a row by its line in the file (FILE:LINE where there are several), or by the name of its image"
    if not found:
        flaws.append(Flaw(fault.line, f"data.{fault.split} has no usable row {name!r}", fix))
    else:
        flaws.append(Flaw(fault.line, f"{name!r} could be any of {len(found)} rows of data.{fault.split}", fix))
    return None


class _Finder:
    """The rows of one split by what they are called."""

    def __init__(self, name: str, task: Task, data: Ingested) -> None:
        self._by_line: dict[str, list[int]] = defaultdict(list)
        self._by_place: dict[str, list[tuple[str, int]]] = defaultdict(list)
        lines, files = data.column(rows.ROW).to_pylist(), data.column(rows.FILE).to_pylist()
        for number, (line, file) in enumerate(zip(lines, files, strict=True)):
            self._by_line[str(line)].append(number)
            self._by_place[f"{storage.name(data.files[file])}:{line}"].append((f"{data.files[file]}:{line}", number))
        media = [role for role, column in task.columns.items() if column.kind in rows.MEDIA and role in data.schema.names]
        for role in media:
            for number, place in enumerate(data.column(role).to_pylist()):
                if place is not None:
                    self._by_place[storage.name(place)].append((place, number))

    def rows(self, name: str) -> Sequence[int]:
        """The rows that a name may mean: a line, ``FILE:LINE``, or an image, with as much of its path as is needed."""
        if name.isdecimal():
            return self._by_line.get(name, [])
        named = self._by_place.get(storage.name(name), [])
        return [number for place, number in named if place == name or place.endswith("/" + name.lstrip("./"))]
