"""Looks through the rows of the given splits, and does about what it finds what the recipe says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data.care import groups, pictures, repeats, texts
from tunesmith.data.care.inputs import Inputs
from tunesmith.data.care.known import Flags
from tunesmith.data.care.leaks import leaks, refusal
from tunesmith.data.care.repeats import Finding
from tunesmith.data.care.sides import SIDES, part_sides
from tunesmith.data.domains import shared_inputs
from tunesmith.data.ingest import Ingested
from tunesmith.data.split_columns import method
from tunesmith.errors import DataError
from tunesmith.recipe.clean import CleanSection
from tunesmith.recipe.data import DataSection
from tunesmith.tasks.base import Task

log = logging.getLogger(__name__)

NEAR_ROWS = {"text": 1_000_000, "image": 50_000}
"""Different inputs up to which near duplicates are looked for where the recipe leaves it open (``auto``)."""

WHAT = {
    "duplicates": "rows have the input and the target of an earlier row",
    "near_duplicates": "rows have nearly the input of an earlier row",
    "conflicts": "rows have the input of another row and another target",
}
FAULTS = {"duplicates": "duplicate", "near_duplicates": "near-duplicate", "conflicts": "conflict"}
"""What a row that is found so is called in ``data.known_faults``."""
_COUNTED = CleanSection(near_duplicates="off")


@dataclass
class Treated:
    """The given splits after what the recipe wants done to them, and what their rows have in common."""

    given: dict[str, Ingested]
    kept: dict[str, np.ndarray]
    """The rows of each that stay: sorted indices."""
    copies: np.ndarray
    """Codes of the rows of ``train``: the same input."""
    near: np.ndarray
    """Codes of the rows of ``train``: nearly the same input, or the same."""
    found: dict[str, Any]
    """What was looked for, found and done, as plain data for the manifest."""
    flags: Flags = field(default_factory=Flags)
    """The rows that were found, whatever was done with them."""


def treat(data: DataSection, task: Task, given: Mapping[str, Ingested], folder: Path, learning: bool = True) -> Treated:
    """Look for duplicates, contradictions and leaks, and leave out, move or refuse rows.

    ``folder`` takes rows that change their split. Where nothing is learned from the rows (``learning`` is False) they are only
    counted. Raises :class:`DataError` for what the recipe does not accept, with the first rows.
    """
    settings = data.clean if learning else _COUNTED
    inputs = Inputs(task, given)
    exact, targets = groups.codes_of(inputs.keys), groups.codes_of(inputs.targets)
    near, looked = near_codes(inputs, exact, settings)
    flags = Flags()
    kept, found = _cleaned(inputs, exact, near, targets, settings, flags)
    if not looked["done"]:
        flags.by_kind.pop(FAULTS["near_duplicates"], None)
    found["near_duplicates"]["looked_for"] = looked
    found["texts"] = {"untidy": {name: one.untidy for name, one in given.items()}, "normalized": data.clean.normalize}
    first = next(iter(given))
    treated = Treated(dict(given), kept, exact[inputs.span(first)], near[inputs.span(first)], found, flags)
    if (domains := given[first].domains) is not None:
        found["domains"] = {"shared": shared_inputs(domains, treated.copies)}
    found["leakage"] = {"action": data.leakage if learning else "off", "given": {}, "made": {}, "kept_together": 0, "parted": 0}
    if learning and data.leakage != "off" and len(given) > 1:
        stays = method(data, given[first]) in SIDES  # one more row in train would bring its whole group or its time there
        _part_from_train(treated, inputs, exact, near, data.leakage, None if stays else folder)
        found["leakage"]["sides"] = part_sides(data, treated.given, treated.kept)
    return treated


def count_made(treated: Treated, task: Task, made: Mapping[str, tuple[Ingested, np.ndarray]]) -> None:
    """Note what the splits cut off ``train`` still share with it, and with each other."""
    found = treated.found["leakage"]
    if found["action"] == "off":
        return
    train = treated.given["train"]
    before = made["train"][1]
    rows = sum(len(chosen) for data, chosen in made.values() if data is train)
    found["left_out"] = len(treated.kept["train"]) - rows
    inputs = Inputs(task, {"train": train})
    for name, (data, chosen) in made.items():
        if name == "train" or data is not train:
            continue
        exact = leaks(before, chosen, treated.copies)
        close = leaks(before, np.setdiff1d(chosen, exact.gone), treated.near)
        found["made"][name] = _leak_entry(inputs, exact, close)
        before = np.union1d(before, chosen)
        if exact.rows + close.rows:
            log.warning("%d rows of the %s split stand in an earlier split too, or nearly", exact.rows + close.rows, name)


def near_codes(inputs: Inputs, exact: np.ndarray, settings: CleanSection) -> tuple[np.ndarray, dict[str, Any]]:
    """Codes of nearly equal inputs, and whether and how they were looked for; the exact codes where they were not."""
    if settings.near_duplicates == "off":
        return exact, {"done": False, "why": "data.clean.near_duplicates is off"}
    if inputs.kind is None:
        return exact, {"done": False, "why": "the inputs are neither texts nor single images"}
    rows = np.sort(np.unique(exact, return_index=True)[1])
    most = NEAR_ROWS[inputs.kind]
    if settings.near_duplicates == "auto" and len(rows) > most:
        why = f"{len(rows):,} different inputs are more than {most:,}; set data.clean.near_duplicates: report to look anyway"
        return exact, {"done": False, "why": why}
    how: dict[str, Any]
    if inputs.kind == "text":
        pairs, complete = texts.near_pairs(len(rows), lambda some: inputs.texts(rows[some]), settings.similarity)
        how = {"done": True, "how": "character 5-grams", "similarity": settings.similarity, "complete": complete}
    else:
        pairs = pictures.near_pairs(len(rows), lambda some: inputs.images(rows[some]), settings.image_distance)
        how = {"done": True, "how": "perceptual hash", "image_distance": settings.image_distance, "complete": True}
    codes = np.empty(len(rows), dtype=np.int64)
    codes[exact[rows]] = groups.joined(len(rows), pairs)
    return codes[exact], how


def _cleaned(
    inputs: Inputs, exact: np.ndarray, near: np.ndarray, targets: np.ndarray, settings: CleanSection, flags: Flags
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The rows of each split that stay, and the entries of duplicates, near duplicates and conflicts."""
    actions: dict[str, str] = {name: getattr(settings, name) for name in WHAT}
    found: dict[str, dict[str, Any]] = {
        name: {"action": action, "rows": 0, "groups": 0, "left_out": 0, "by_split": {}, "examples": []}
        for name, action in actions.items()
    }
    kept = {}
    for split, data in inputs.given.items():
        span = inputs.span(split)
        same, close, meant = (groups.codes_of(codes[span]) for codes in (exact, near, targets))
        looks = {
            "conflicts": partial(repeats.conflicts, same, meant, settings.conflicts == "majority"),
            "duplicates": partial(repeats.duplicates, groups.pair_codes(same, meant)),
            "near_duplicates": partial(repeats.near_duplicates, close, same, meant),
        }
        stays = np.ones(data.count, dtype=bool)
        for name, look in looks.items():
            one = look()
            flags.add(FAULTS[name], one.flagged + span.start)
            entry = found[name]
            entry["rows"] += one.rows
            entry["groups"] += one.groups
            entry["by_split"][split] = one.rows
            room = repeats.SHOWN - len(entry["examples"])
            entry["examples"] += _examples(inputs, [(row + span.start, of + span.start) for row, of in one.examples[:room]])
            if actions[name] == "error" and one.rows:
                raise _refused(name, split, one.rows, data.count, entry["examples"])
            if actions[name] in ("drop", "majority"):
                entry["left_out"] += int(stays[one.gone].sum())
                stays[one.gone] = False
        kept[split] = np.flatnonzero(stays)
        if data.count and not len(kept[split]):
            raise DataError(f"no row of the {split} split is left without duplicates and conflicts\n    → Check its targets.")
    return kept, found


def _part_from_train(
    treated: Treated, inputs: Inputs, exact: np.ndarray, near: np.ndarray, action: str, folder: Path | None
) -> None:
    """What given splits share with ``train`` is refused, moved or counted, as ``action`` says.

    Near copies move into ``train``, whose new rows ``folder`` takes; without a folder they are left out too.
    """
    starts, train = inputs.starts, treated.kept["train"] + inputs.starts["train"]
    for name in list(treated.given)[1:]:
        data, judged = treated.given[name], treated.kept[name] + starts[name]
        same = leaks(train, judged, exact)
        close = leaks(train, np.setdiff1d(judged, same.gone), near)
        treated.flags.add("leak", same.flagged)
        if treated.found["near_duplicates"]["looked_for"]["done"]:
            treated.flags.add("near-leak", close.flagged)
        entry = _leak_entry(inputs, same, close)
        treated.found["leakage"]["given"][name] = entry
        for how, one, refused in (("exactly", same, ("auto", "error")), ("nearly", close, ("error",))):
            if one.rows and action in refused:
                raise refusal(name, how, one.rows, len(judged), entry["examples"][how])
        if action == "move":
            gone = np.union1d(same.gone, close.gone)
            treated.kept[name] = np.setdiff1d(judged, gone) - starts[name]
            moved = close.gone if folder is not None else close.gone[:0]
            if folder is not None and len(moved):
                _move(treated, data, moved - starts[name], folder / f"moved-{name}", exact[moved], near[moved])
            entry |= {"left_out": len(gone) - len(moved), "moved": len(moved)}
            if len(gone):
                what = "%d of %d rows of data.%s stand in data.train too, exactly or nearly: %d left out, %d moved into train"
                log.warning(what, len(gone), len(judged), name, entry["left_out"], entry["moved"])
        elif same.rows + close.rows:
            what = "%d rows of data.%s stand in data.train too, exactly or nearly (data.leakage: move takes them out)"
            log.warning(what, same.rows + close.rows, name)


def _move(treated: Treated, data: Ingested, rows: np.ndarray, folder: Path, copies: np.ndarray, near: np.ndarray) -> None:
    """The ``rows`` of another split become the last ones of ``train``."""
    train = treated.given["train"]
    treated.given["train"] = train.extended(data, rows, folder, _domains_of_moved(treated, data, rows, near))
    treated.kept["train"] = np.concatenate([treated.kept["train"], np.arange(train.count, train.count + len(rows))])
    treated.copies = np.concatenate([treated.copies, copies])
    treated.near = np.concatenate([treated.near, near])


def _domains_of_moved(treated: Treated, data: Ingested, rows: np.ndarray, near: np.ndarray) -> np.ndarray | None:
    """The domain that each moved row has in ``train``: its own where ``train`` has that, else that of the row it nearly is."""
    ours = treated.given["train"].domains
    if ours is None:
        return None
    codes, first = np.unique(treated.near, return_index=True)
    twins = ours.codes[first[np.searchsorted(codes, near)]]
    if data.domains is None:
        return twins
    known = np.array([ours.names.index(name) if name in ours.names else -1 for name in data.domains.names])
    own = known[data.domains.codes[rows]]
    return np.where(own < 0, twins, own)


def _leak_entry(inputs: Inputs, exact: Finding, near: Finding) -> dict[str, Any]:
    shown = {"exactly": _examples(inputs, exact.examples), "nearly": _examples(inputs, near.examples)}
    return {"exact": exact.rows, "near": near.rows, "left_out": 0, "moved": 0, "examples": shown}


def _examples(inputs: Inputs, pairs: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Rows with what they say, and the row that each belongs to."""
    if not pairs:
        return []
    cards = inputs.cards(np.asarray(pairs).ravel())
    return [{**cards[row], "of": cards[other]} for row, other in pairs]


def _refused(what: str, split: str, rows: int, total: int, examples: list[dict[str, Any]]) -> DataError:
    lines = [f"{rows:,} of {total:,} {split} {WHAT[what]}"]
    for one in examples:
        place, of = (f"{card['file']}, row {card['row']} ({card['target']})" for card in (one, one["of"]))
        lines.append(f"  {place} and {of}: {one['input']!r}")
    remedy = "drop, majority or report" if what == "conflicts" else "drop or report"
    lines.append(f"    → Mend these rows, or set data.clean.{what}: {remedy}.")
    return DataError("\n".join(lines))
