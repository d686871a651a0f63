"""What data care looked for, found and did: a section of the report, and lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.data.imagefolder import is_image
from tunesmith.evaluation.examples import thumbnail
from tunesmith.evaluation.results import Evaluation

if TYPE_CHECKING:
    from tunesmith.report.page import Section
    from tunesmith.runs import Run

TITLES = {"duplicates": "Exact duplicates", "near_duplicates": "Near duplicates", "conflicts": "Conflicting labels"}
DONE = {"report": "reported", "auto": "reported", "drop": "left out", "majority": "left out"}
FAULTS = {
    "duplicate": "duplicates",
    "near-duplicate": "near duplicates",
    "conflict": "conflicting rows",
    "mislabelled": "wrong labels",
    "leak": "leaks",
    "near-leak": "near leaks",
}
SIDES = {"group": "Groups on both sides", "time": "Not later than train"}
SUSPECTS = 20
"""Suspects that the page shows; all that are kept are in ``data/report.json``."""


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The section *Data care*, or None for data that was prepared without it."""
    from markupsafe import Markup

    from tunesmith.report.page import Section, environment

    care = _stored(run)
    if not care:
        return None
    page = environment().get_template("care.html.j2")
    audit = {"applied": False, "why": "", **care.get("label_errors", {})}
    known = {FAULTS[kind].capitalize(): one for kind, one in (care.get("known_faults") or {}).items()}
    suspects = [_shown(card) for card in audit.get("examples", [])[:SUSPECTS]]
    html = page.render(rows=_rows(care), examples=_examples(care), audit=audit, suspects=suspects, known=known)
    return Section("Data care", Markup(html))


def summary(care: Mapping[str, Any]) -> list[str]:
    """What is worth a line in the terminal; nothing where data was prepared without care.

    >>> summary({"duplicates": {"rows": 12, "left_out": 12, "action": "drop"}, "conflicts": {"rows": 3, "left_out": 0}})
    ['data: 12 exact duplicates (left out), 3 rows with conflicting labels']
    """
    if not care:
        return []
    parts = []
    for name, words in (("duplicates", "exact duplicate"), ("near_duplicates", "near duplicate")):
        entry = care.get(name, {})
        if entry.get("looked_for", {}).get("done", True) and entry:
            parts.append(_count(entry["rows"], words) + _left_out(entry))
    conflicts = care.get("conflicts")
    if conflicts:
        parts.append(_count(conflicts["rows"], "row") + " with conflicting labels" + _left_out(conflicts))
    leakage = care.get("leakage", {})
    if leakage and leakage["action"] != "off":
        parts.append(_leaks(leakage))
    lines = ["data: " + ", ".join(parts)] if parts else []
    if leakage.get("parted"):
        parted = _count(leakage["parted"], "row")
        lines.append(f"data: {parted} of a common template: only exact copies are kept on one side of the split")
    lines += [f"data: {one['rows']:,} rows of {name} {one['says']}" for name, one in _astray(leakage).items()]
    audit = care.get("label_errors", {})
    if audit.get("applied"):
        lines.append(f"data: {audit['suspects']:,} of {audit['audited']:,} labels look wrong{_left_out(audit)}")
    elif audit.get("action", "off") != "off":
        lines.append(f"data: labels were not audited: {audit.get('why', '')}")
    return lines + _known(care.get("known_faults") or {})


def _known(faults: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many of the rows that are known to be bad were found, in a line.

    >>> _known({"leak": {"looked_at": 9, "found": 8, "by_mistake": 1}, "conflict": {"looked_at": 0, "found": None}})
    ['known faults: 8 of 9 leaks found (and 1 other row), conflicting rows not looked for']
    """
    parts = []
    for kind, one in faults.items():
        noun = FAULTS[kind]
        if one["found"] is None:
            parts.append(f"{noun} not looked for")
            continue
        others = f" (and {_count(one['by_mistake'], 'other row')})" if one["by_mistake"] else ""
        parts.append(f"{one['found']:,} of {one['looked_at']:,} {noun}{'' if parts else ' found'}{others}")
    return ["known faults: " + ", ".join(parts)] if parts else []


def _leaks(leakage: Mapping[str, Any]) -> str:
    splits = [*leakage["given"].values(), *leakage["made"].values()]
    exact, near = (sum(one[how] for one in splits) for how in ("exact", "near"))
    gone = sum(one["left_out"] + one["moved"] for one in splits)
    text = _count(exact, "leak") + (f" and {near:,} near ones" if near else "")
    return text + (" (moved)" if gone else "")


def _left_out(entry: Mapping[str, Any]) -> str:
    gone, rows = entry.get("left_out", 0), entry.get("rows", entry.get("suspects", 0))
    return "" if not gone else " (left out)" if gone == rows else f" ({gone:,} rows left out)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _stored(run: Run) -> dict[str, Any]:
    try:
        stored = storage.read_json(run.file("data/report.json"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return dict(stored.get("care") or {})


def _rows(care: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was looked for: title, number found, where, what was done."""
    shown = []
    for name, title in TITLES.items():
        entry = care[name]
        looked = entry.get("looked_for", {"done": True})
        splits = ", ".join(f"{count:,} in {split}" for split, count in entry["by_split"].items() if count)
        done = DONE.get(entry["action"], "") + (f": {entry['left_out']:,} rows" if entry["left_out"] else "")
        how = f"not looked for: {looked['why']}" if not looked["done"] else done if entry["rows"] else ""
        shown.append({"title": title, "rows": entry["rows"] if looked["done"] else None, "where": splits, "done": how})
    leakage = care["leakage"]
    for how, title in (("exact", "Leaks"), ("near", "Near leaks")):
        leaking = {**leakage["given"], **leakage["made"]}
        where = ", ".join(f"{one[how]:,} in {name}" for name, one in leaking.items() if one[how])
        rows = sum(one[how] for one in leaking.values()) if leakage["action"] != "off" else None
        shown.append({"title": title, "rows": rows, "where": where, "done": _leaks_done(leakage, how, rows)})
    shown += _sides(leakage)
    untidy = care["texts"]["untidy"]
    where = ", ".join(f"{count:,} in {split}" for split, count in untidy.items() if count)
    done = ("normalised" if care["texts"]["normalized"] else "reported") if where else ""
    shown.append({"title": "Untidy texts", "rows": sum(untidy.values()), "where": where, "done": done})
    missing = care.get("missing", 0)
    shown.append({"title": "Missing values", "rows": missing, "where": "", "done": "see The data" if missing else ""})
    return shown


def _astray(leakage: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The given splits that have rows on the side of train."""
    return {name: one for name, one in (leakage.get("sides") or {}).items() if one["rows"]}


def _sides(leakage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of given splits on the side of train, by group or time; nothing where the recipe names neither."""
    sides = leakage.get("sides") or {}
    if not sides:
        return []
    title = SIDES[next(iter(sides.values()))["by"]]
    where = ", ".join(f"{one['rows']:,} in {name} {one['says']}" for name, one in _astray(leakage).items())
    gone, untold = (sum(one[what] for one in sides.values()) for what in ("left_out", "untold"))
    rows = sum(one["rows"] for one in sides.values())
    parts = [f"{gone:,} rows left the evaluation" if gone else "reported"] if rows else []
    parts += [f"{_count(untold, 'row')} cannot be told"] if untold else []
    return [{"title": title, "rows": rows, "where": where, "done": "; ".join(parts)}]


def _leaks_done(leakage: Mapping[str, Any], how: str, rows: int | None) -> str:
    if rows is None:
        return "not looked for: data.leakage is off"
    given = leakage["given"].values()
    exact = sum(min(one["left_out"], one["exact"]) for one in given)
    gone = exact if how == "exact" else sum(one["left_out"] for one in given) - exact
    moved = sum(one["moved"] for one in given) if how == "near" else 0
    parts = [f"{gone:,} rows left the evaluation"] if gone else []
    parts += [f"{moved:,} rows moved to train"] if moved else []
    if how == "exact" and leakage["kept_together"]:
        parts.append(f"{leakage['kept_together']:,} rows with copies kept on one side")
    if how == "exact" and leakage.get("left_out"):
        parts.append(f"{leakage['left_out']:,} later copies left out")
    if how == "near" and leakage["parted"]:
        parts.append(f"{leakage['parted']:,} rows follow a template and were not kept together")
    return "; ".join(parts) or ("reported" if rows else "")


def _examples(care: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables of pairs of rows, by kind of finding."""
    tables = [{"title": title, "pairs": care[name]["examples"]} for name, title in TITLES.items()]
    splits = {**care["leakage"]["given"], **care["leakage"]["made"]}
    for how, title in (("exactly", "Leaks"), ("nearly", "Near leaks")):
        tables.append({"title": title, "pairs": [pair for one in splits.values() for pair in one["examples"][how]]})
    shown = [{**table, "pairs": [{**_shown(one), "of": _shown(one["of"])} for one in table["pairs"]]} for table in tables]
    return [table for table in shown if table["pairs"]]


def _shown(card: Mapping[str, Any]) -> dict[str, Any]:
    """A row for the page: an image that can still be read as an image, and of long places the end."""
    image = thumbnail(card["input"]) if is_image(card["input"]) else None
    says = _end(card["input"]) if is_image(card["input"]) else card["input"]
    return {**card, "image": image, "says": says, "place": _end(card["file"])}


def _end(place: str) -> str:
    """The last two parts of a place.

    >>> _end("/home/me/data/train/metadata.csv"), _end("reviews.csv")
    ('train/metadata.csv', 'reviews.csv')
    """
    return "/".join(place.rstrip("/").split("/")[-2:])
