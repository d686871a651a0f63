"""Several objectives in the report: the trials that no other beats in everything, as a picture and a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tunesmith.recipe.search_checks import lower_is_better
from tunesmith.report import svg, words
from tunesmith.report.search_plots import Row, Scale
from tunesmith.tuning.view import short

MEASURED = {"latency_ms": "latency (ms)", "size_mb": "size (MB)", "train_seconds": "training time (s)"}
"""Objectives that are no metrics."""

KINDS = {"chosen": "own", "front": "base", "other": "majority"}


def front(record: Mapping[str, Any]) -> Markup:
    """The part on the front, and why one of its trials was chosen."""
    names = record["objectives"]
    rule = (
        f"No other trial beats these in every objective. Chosen is, of those whose {_title(names[0])} is at most "
        f"{record['tolerance']:g} worse than the best, the one with the best {_title(names[1])}."
    )
    pictures = [drawn for name in names[1:] if (drawn := picture(record, name))]
    wrap = Markup('<div class="two">{}</div>' if len(pictures) > 1 else "{}")
    drawn = wrap.format(Markup("").join(Markup("<div>{}</div>").format(one) for one in pictures))
    key = svg.legend([("chosen", "own"), ("the front", "base"), ("other trials", "majority")]) if pictures else Markup("")
    return Markup('<h3>The front</h3><p class="note">{}</p>{}{}').format(rule, drawn, key) + _table(record)


def picture(record: Mapping[str, Any], across: str, width: int = 470, height: int = 320) -> Markup:
    """Every trial by its first objective (upwards) and another one; of two objectives, the front is a line of steps."""
    upwards = record["objectives"][0]
    found = [(row, x, y) for row in record["trials"] if (x := value(record, row, across)) is not None
             and (y := value(record, row, upwards)) is not None and row["origin"] != "seed"]  # fmt: skip
    if len(found) < 2:
        return Markup("")
    left, right, top, floor = 56.0, width - 16.0, 30.0, height - 40.0
    flat = Scale.of([x for _, x, _ in found], -1 if lower_is_better(across) else 1)
    steep = Scale.of([y for _, _, y in found], record["sign"])

    def place(x: float, y: float) -> tuple[float, float]:
        return left + flat.share(x) * (right - left), floor - steep.share(y) * (floor - top)

    parts = [
        svg.text("title", 0, 14, words.metric_title(upwards)),
        svg.text("tick", right, height - 4, f"{_title(across)} →", "end"),
    ]
    for tick in steep.ticks():
        y = place(flat.low, tick)[1]
        parts += [svg.line("grid", left, y, right, y), svg.text("tick", left - 8, y + 4, _number(upwards, tick, False), "end")]
    for tick in flat.ticks():
        parts.append(svg.text("tick", place(tick, steep.low)[0], floor + 18, _number(across, tick, False), "middle"))
    best = sorted((place(x, y) for row, x, y in found if row["number"] in record["front"]), key=lambda one: one[0])
    if len(record["objectives"]) == 2:
        parts.append(svg.polyline("curve base", _steps(best, lower_is_better(across))))
    for row, x, y in sorted(found, key=lambda one: list(KINDS).index(_kind(record, one[0])), reverse=True):
        kind = _kind(record, row)
        said = f"trial {row['number']}: {_number(upwards, y)}, {_title(across)} {_number(across, x)}"
        parts.append(svg.dot(KINDS[kind], *place(x, y), 6.0 if kind == "chosen" else 4.0, said))
    return svg.image(width, height, parts, f"{words.metric_title(upwards)} of each trial against {_title(across)}")


def _steps(places: list[tuple[float, float]], less: bool) -> list[tuple[float, float]]:
    """The corners between the front's points: what lies beyond them is beaten. ``less``: of the axis across, less is better."""
    corners = [(two[0], one[1]) if less else (one[0], two[1]) for one, two in itertools.pairwise(places)]
    return [point for pair in zip(places, corners, strict=False) for point in pair] + places[-1:]


def _kind(record: Mapping[str, Any], row: Row) -> str:
    if row["number"] == record["winner"]:
        return "chosen"
    return "front" if row["number"] in record["front"] else "other"


def _table(record: Mapping[str, Any]) -> Markup:
    names = record["objectives"]
    known = {row["number"]: row for row in record["trials"]}
    head = Markup("<thead><tr><th>Trial</th>{}<th>Values</th></tr></thead>").format(
        Markup("").join(Markup('<th class="n">{}</th>').format(_title(name)) for name in names)
    )
    rows = Markup("").join(
        Markup('<tr{}><td class="name">{}{}</td>{}<td class="long">{}</td></tr>').format(
            Markup(' class="main"') if number == record["winner"] else "",
            number,
            " (chosen)" if number == record["winner"] else "",
            Markup("").join(
                Markup('<td class="n">{}</td>').format(_number(name, value(record, known[number], name))) for name in names
            ),
            short(known[number]["values"]),
        )
        for number in record["front"]
    )
    return Markup('<div class="scroll"><table>{}<tbody>{}</tbody></table></div>').format(head, rows)


def value(record: Mapping[str, Any], row: Row, name: str) -> float | None:
    """An objective of a trial; None where it has none, or no number."""
    found = row["value"] if name == record["metric"] else row["objectives"].get(name)
    return found if found is not None and math.isfinite(found) else None


def _title(name: str) -> str:
    return MEASURED.get(name) or words.in_sentence(name)


def _number(name: str, found: float | None, unit: bool = True) -> str:
    if name in MEASURED:
        return f"{found:.3g}" if found is not None else "–"
    return words.number(name, found, unit=unit)
