"""The list of rows that are known to be bad (``data.known_faults``), and what can be wrong with it before any row is read.

A CSV file with the columns ``split`` (``train``, ``validation`` or ``test``, one that is given), ``row``, ``fault`` and, where
that is known, ``of``: the row that it was made from. A row is named as messages and the report name it, by its line in the file
(``17``; ``reviews.csv:17`` where a split has several files), or by the name of its image.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import nearest
from tunesmith.recipe.paths import absolute, is_uri, places_of
from tunesmith.recipe.yaml_tree import Keys

if TYPE_CHECKING:
    from tunesmith.recipe.recipe import Recipe

FAULTS = {
    "duplicate": ("train", "validation", "test"),
    "near-duplicate": ("train", "validation", "test"),
    "conflict": ("train", "validation", "test"),
    "mislabelled": ("train",),
    "leak": ("validation", "test"),
    "near-leak": ("validation", "test"),
}
"""The kinds of fault that data care looks for, and the splits in which it does."""

KEY: Keys = ("data", "known_faults")
COLUMNS = ("split", "row", "fault")
SHOWN = 5
"""Mistakes of a list that are told."""


@dataclass(frozen=True)
class Fault:
    """A line of the list."""

    line: int
    split: str
    row: str
    kind: str
    of: str | None = None


@dataclass(frozen=True)
class Flaw:
    """A mistake in the list."""

    line: int
    what: str
    fix: str


def parse(text: str) -> tuple[list[Fault], list[Flaw]]:
    r"""The faults that the text of a list names, and its mistakes.

    >>> parse("split,row,fault,of\ntrain,17,duplicate,3\n")[0]
    [Fault(line=2, split='train', row='17', kind='duplicate', of='3')]
    >>> parse("split,row,fault\ntrain,17,dupe\n")[1][0].what
    "there is no fault 'dupe'"
    """
    reader = csv.DictReader(text.removeprefix("\ufeff").splitlines(), skipinitialspace=True)
    lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if lacking:
        named = " and ".join(repr(name) for name in lacking)
        return [], [Flaw(1, f"it has no column {named}", "name the columns split,row,fault and, if you like, of")]
    faults, flaws = [], []
    for values in reader:
        cells = {name: value.strip() for name, value in values.items() if isinstance(value, str)}
        fault = Fault(
            reader.line_num, cells.get("split", ""), cells.get("row", ""), cells.get("fault", ""), cells.get("of") or None
        )
        flaw = _flaw(fault)
        if flaw is None:
            faults.append(fault)
        else:
            flaws.append(Flaw(fault.line, *flaw))
    if not faults and not flaws:
        flaws.append(Flaw(1, "it names no row", "name rows below the column names, or remove data.known_faults"))
    return faults, flaws


def problems(recipe: Recipe) -> Iterator[tuple[Keys, str, str]]:
    """What is wrong with the recipe's list, where it can be read on this machine: the key, what, and the fix."""
    data = recipe.data
    place = absolute(data.known_faults, recipe.base_dir) if data.known_faults else ""
    if is_uri(place) or not os.path.exists(place):
        return
    try:
        with open(place, encoding="utf-8") as file:
            faults, flaws = parse(file.read())
    except (OSError, UnicodeDecodeError):
        yield KEY, f"{place} cannot be read as text", "give a CSV file with the columns split,row,fault"
        return
    if not _may_bring_splits(recipe):
        flaws += _not_given(faults, {"train", *(name for name in ("validation", "test") if getattr(data, name) is not None)})
    if flaws:
        yield KEY, *told(place, flaws)


def _may_bring_splits(recipe: Recipe) -> bool:
    """Whether ``data.train`` may have a validation or test split in it: a folder may, and what is not on this machine."""
    places = [absolute(place, recipe.base_dir) for _, place in places_of(recipe.data.train)]
    return recipe.data.format == "hub" or any(is_uri(place) or os.path.isdir(place) for place in places)


def told(place: str, flaws: list[Flaw]) -> tuple[str, str]:
    """The mistakes of the list at ``place`` as one, and the first one's fix."""
    flaws = sorted(flaws, key=lambda one: one.line)
    lines = [f"{place}, line {one.line}: {one.what}" for one in flaws[:SHOWN]]
    more = f"; and {len(flaws) - SHOWN} more" if len(flaws) > SHOWN else ""
    return "; ".join(lines) + more, flaws[0].fix


def _flaw(fault: Fault) -> tuple[str, str] | None:
    if fault.kind not in FAULTS:
        near = nearest(fault.kind, FAULTS)
        return f"there is no fault {fault.kind!r}", f"did you mean {near}?" if near else "write one of " + ", ".join(FAULTS)
    if fault.split not in FAULTS[fault.kind]:
        where = " or ".join(FAULTS[fault.kind])
        return f"{fault.kind} is looked for in {where}, not in {fault.split!r}", f"write {where} for its split"
    return None if fault.row else ("no row is named", "write its line in the file, or the name of its image")


def _not_given(faults: list[Fault], given: set[str]) -> Iterator[Flaw]:
    for fault in faults:
        if fault.split not in given:
            what = f"data.{fault.split} is not given: rows that are split off are named as rows of train"
            yield Flaw(fault.line, what, f"give data.{fault.split}, or write train")
