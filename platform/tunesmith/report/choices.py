"""Ways of training as points of two metrics, each labelled where there is room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import svg
from tunesmith.report.ticks import in_units, padded, ticks
from tunesmith.report.words import is_percent, number

_LETTER = 6.1
"""About how wide a letter of a label is."""


@dataclass(frozen=True)
class Choice:
    """One point of a trade-off between two metrics."""

    label: str
    across: Estimate
    upwards: Estimate
    kind: str = "own"
    family: str = ""
    """Points of one family are joined, in the order in which they are given."""


def choices(across: str, upwards: str, name: str, given: Sequence[Choice], width: int = 760, height: int = 520) -> Markup:
    """Ways of training by two values of the metric ``name``, with their intervals; each is labelled where there is room."""
    drawn = [one for one in given if math.isfinite(one.across.value) and math.isfinite(one.upwards.value)]
    if len(drawn) < 2:
        return Markup("")
    left, right, top, bottom = 52, 110, 52, 42  # with room for labels beside and above the best
    ranges = [[end for one in drawn for end in _ends(value(one))] for value in (_across, _upwards)]
    (x_low, x_high), (y_low, y_high) = (padded(ends) for ends in ranges)
    if is_percent(name):
        x_high, y_high = min(x_high, 1.0), min(y_high, 1.0)

    def x(value: float) -> float:
        return left + (min(max(value, x_low), x_high) - x_low) / (x_high - x_low) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (min(max(value, y_low), y_high) - y_low) / (y_high - y_low) * (height - bottom - top)

    parts = [svg.text("title", 0, 14, upwards), svg.text("tick", width - right, height - 4, f"{across} →", "end")]
    drawn.sort(key=lambda one: one.kind == "majority")  # the others are labelled first
    for tick in ticks(y_low, y_high, 6):
        parts.append(svg.line("grid", left, y(tick), width - right, y(tick)))
        parts.append(svg.text("tick", left - 8, y(tick) + 4, in_units(name, tick), "end"))
    parts += [
        svg.text("tick", x(tick), height - bottom + 18, in_units(name, tick), "middle") for tick in ticks(x_low, x_high, 6)
    ]
    places = [(x(one.across.value), y(one.upwards.value)) for one in drawn]
    for family in dict.fromkeys(one.family for one in drawn if one.family):
        line = [place for one, place in zip(drawn, places, strict=True) if one.family == family]
        parts.append(svg.polyline("curve thread", line))
    for one, place in zip(drawn, places, strict=True):
        if math.isfinite(one.across.low):
            parts.append(svg.line(f"whisker thin {one.kind}", x(one.across.low), place[1], x(one.across.high), place[1]))
        if math.isfinite(one.upwards.low):
            parts.append(svg.line(f"whisker thin {one.kind}", place[0], y(one.upwards.low), place[0], y(one.upwards.high)))
    for one, place in zip(drawn, places, strict=True):
        said = f"{one.label}: {number(name, one.across.value)} and {number(name, one.upwards.value)}"
        parts.append(svg.dot(one.kind, *place, 5, said))
    labels = _labelled([one.label for one in drawn], places, width, height - bottom)
    for one, (x_dot, y_dot), start in zip(drawn, places, labels, strict=True):
        if start is None:
            continue
        near = min(max(x_dot, start[0]), start[0] + _LETTER * len(one.label)), start[1] - 4
        if math.dist((x_dot, y_dot), near) > 16:
            parts.append(svg.line("leader", x_dot, y_dot, *near))
        parts.append(svg.text(f"mark {one.kind}", *start, one.label))
    return svg.image(width, height, parts, f"{upwards} against {across}")


def _across(one: Choice) -> Estimate:
    return one.across


def _upwards(one: Choice) -> Estimate:
    return one.upwards


def _ends(estimate: Estimate) -> list[float]:
    return [end for end in (estimate.low, estimate.value, estimate.high) if math.isfinite(end)]


def _labelled(
    labels: Sequence[str], points: Sequence[tuple[float, float]], width: float, floor: float
) -> list[tuple[float, float] | None]:
    """Where the text of each point begins, such that it hides no other text and no point; None where there is no room."""
    taken = [(x - 6.0, y - 6.0, x + 6.0, y + 6.0) for x, y in points]
    found: list[tuple[float, float] | None] = []
    for label, (x, y) in zip(labels, points, strict=True):
        long = _LETTER * len(label)
        starts = [
            (x + dx if dx > 0 else x - long + dx if dx < 0 else x - long / 2, y + dy)
            for reach in (0, 8, 16, 24, 34)
            for dx, dy in (
                (10 + reach, 4),
                (-10 - reach, 4),
                (0, -10 - reach),
                (0, 18 + reach),
                (9, -8 - reach),
                (9, 16 + reach),
            )
        ]
        boxes = [(left, base - 10, left + long, base + 3) for left, base in starts]
        free = [
            start
            for start, box in zip(starts, boxes, strict=True)
            if box[0] >= 54
            and box[2] <= width
            and box[1] >= 20
            and box[3] <= floor
            and not any(_meet(box, one) for one in taken)
        ]
        place = free[0] if free else None
        found.append(place)
        if place is not None:
            taken.append((place[0], place[1] - 10, place[0] + long, place[1] + 3))
    return found


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Whether two boxes ``(left, top, right, bottom)`` overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
