"""The figures as SVG text: drawn to be looked at, sharp at any size, coloured by the page's own style sheet.

Widths are in CSS pixels at which the text is 12 px high. Everything that comes from data is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import svg
from tunesmith.report.ticks import in_short, in_units, padded, ticks
from tunesmith.report.words import number

MOST_CELLS = 50
"""Classes up to which a confusion matrix is drawn."""

MOST_NUMBERED = 14
"""Classes up to which its cells hold numbers."""


@dataclass(frozen=True)
class Row:
    """One line of an interval plot."""

    label: str
    estimate: Estimate
    kind: str = "own"
    """The style: ``own``, ``base`` or ``majority``."""


@dataclass(frozen=True)
class Series:
    """One line of a learning curve."""

    label: str
    points: Sequence[tuple[float, float]]
    kind: str = "own"
    smooth: bool = False
    """Draw a running mean, and the points themselves faintly."""


def intervals(name: str, rows: Sequence[Row], width: int = 560) -> Markup:
    """Values with their intervals, one under the other, on a common axis."""
    left, right, step, top = 128, 64, 38, 8
    ends = [end for row in rows for end in (row.estimate.low, row.estimate.high, row.estimate.value) if math.isfinite(end)]
    ends = ends or [0.0, 1.0]
    low, high = min(0.0, *ends), max(ends)
    high = 1.0 if 0.4 < high <= 1 else high * 1.05 or 1.0
    height = top + step * len(rows) + 30

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    parts = []
    for tick in ticks(low, high, 4):
        parts.append(svg.line("grid", x(tick), top, x(tick), height - 26))
        parts.append(svg.text("tick", x(tick), height - 8, in_units(name, tick), "middle"))
    for place, row in enumerate(rows):
        y, one = top + step * (place + 0.5), row.estimate
        parts.append(svg.text("label", left - 14, y + 4, _short(row.label, 18), "end"))
        if not math.isfinite(one.value):
            continue
        if math.isfinite(one.low):
            parts.append(svg.line(f"whisker {row.kind}", x(one.low), y, x(one.high), y))
        parts.append(svg.dot(row.kind, x(one.value), y, 6))
        edge = max(x(one.high) if math.isfinite(one.high) else 0, x(one.value) + 6)
        parts.append(svg.text("value", edge + 8, y + 4, number(name, one.value)))
    return svg.image(width, height, parts, "Values with their intervals")


def bar(estimate: Estimate, low: float = 0.0, high: float = 1.0) -> Markup:
    """A small interval for a table's cell, on an axis from ``low`` to ``high``."""
    if not math.isfinite(estimate.value) or high <= low:
        return Markup("")

    def x(value: float) -> float:
        return 4 + 112 * (min(max(value, low), high) - low) / (high - low)

    parts = [svg.line("axis", 4, 8, 116, 8)]
    if math.isfinite(estimate.low):
        parts.append(svg.line("whisker own", x(estimate.low), 8, x(estimate.high), 8))
    parts.append(svg.dot("own", x(estimate.value), 8, 4))
    start = Markup('<svg class="bar" viewBox="0 0 120 16" width="120" height="16" aria-hidden="true">')
    return start + Markup("").join(parts) + Markup("</svg>")


def curves(
    title: str,
    series: Sequence[Series],
    best: float | None = None,
    unit: str = "updates",
    width: int = 440,
    height: int = 270,
) -> Markup:
    """Values by step, which is counted in ``unit``; ``best`` marks the step whose checkpoint was kept."""
    drawn = [Series(s.label, [p for p in s.points if math.isfinite(p[1])], s.kind, s.smooth) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return Markup("")
    left, right, top, bottom = 46, 14, 30, 38
    floor = height - bottom
    xs = [p[0] for s in drawn for p in s.points]
    y_low, y_high = padded([p[1] for s in drawn for p in s.points])
    x_low, x_high = min(0.0, *xs), max(xs) or 1.0

    def x(value: float) -> float:
        return left + (value - x_low) / (x_high - x_low) * (width - left - right)

    def y(value: float) -> float:
        return floor - (value - y_low) / (y_high - y_low) * (floor - top)

    parts = [svg.text("title", 0, 14, title), svg.text("tick", width - right, height - 4, unit, "end")]
    for tick in ticks(y_low, y_high, 5):
        parts.append(svg.line("grid", left, y(tick), width - right, y(tick)))
        parts.append(svg.text("tick", left - 8, y(tick) + 4, in_short(tick), "end"))
    parts += [svg.text("tick", x(tick), floor + 18, in_short(tick), "middle") for tick in ticks(x_low, x_high, 5)]
    if best is not None and x_low <= best <= x_high:
        late = x(best) > width * 0.7
        near = [y(value) for s in drawn for step, value in s.points if abs(x(step) - x(best)) < width / 8]
        height_of_word = floor - 8 if not near or np.mean(near) < (top + floor) / 2 else top + 10  # where no curve runs
        parts.append(svg.line("best", x(best), top, x(best), floor))
        parts.append(svg.text("tick", x(best) + (-6 if late else 6), height_of_word, "kept", "end" if late else "start"))
    for one in drawn:
        line = [(x(step), y(value)) for step, value in one.points]
        if one.smooth and len(line) > 12:
            parts.append(svg.polyline(f"curve {one.kind} faint", line))
            line = _running_mean(line, max(len(line) // 20, 3))
        parts.append(svg.polyline(f"curve {one.kind}", line))
        if len(line) <= 40 and not one.smooth:
            parts += [svg.dot(one.kind, *point, 3.5) for point in line]
    return svg.image(width, height, parts, title) + svg.legend([(s.label, s.kind) for s in drawn])


def confusion(data: Mapping[str, Any]) -> Markup:
    """Which class is taken for which: rows are the right classes, shaded by their share of the row."""
    labels = [str(label) for label in data["labels"]]
    counts = np.asarray(data["counts"], dtype=np.int64)
    size = len(labels)
    if size > MOST_CELLS:
        said = f"{size} classes are too many for a drawing; the pairs beside are the commonest."
        return Markup('<p class="muted">{}</p>').format(said)
    cell = 64 if size <= 4 else 34 if size <= MOST_NUMBERED else max(12, 560 // size)
    longest = max(len(_short(label, 16)) for label in labels)
    upright = longest * 8 <= cell
    left, top = 26 + longest * 7, 24 + (14 if upright else longest * 7)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [
        svg.text("tick", left, 12, "answer of the model →"),
        svg.text("tick", 12, top, "← right answer", "end", turn=-90),
    ]
    for k, label in enumerate(labels):
        middle, name = cell * (k + 0.5), _short(label, 16)
        parts.append(svg.text("label", left - 8, top + middle + 4, name, "end"))
        parts.append(
            svg.text("label", left + middle, top - 8, name, "middle" if upright else "start", turn=0 if upright else -60)
        )
    for row, column in np.ndindex(size, size):
        count, share = int(counts[row, column]), float(shares[row, column])
        x, y = left + cell * column, top + cell * row
        said = f"{labels[row]} taken for {labels[column]}: {count} of {int(counts[row].sum())} ({share:.0%})"
        # A share of 2 % must still be seen, so shades begin at a tenth.
        shade = 0 if count == 0 else 0.1 + 0.9 * share
        kind = "cell right" if row == column else "cell wrong"
        parts.append(svg.rect(kind, x + 1, y + 1, cell - 2, cell - 2, title=said, shade=shade))
        if size <= MOST_NUMBERED and count:
            tone = "count on-dark" if shade > 0.55 else "count on-light"
            parts.append(svg.text(tone, x + cell / 2, y + cell / 2 + 4, str(count), "middle"))
    width, height = left + cell * size + 8, top + cell * size + 8
    least = round(width * (0.72 if size <= MOST_NUMBERED else 1))
    drawing = svg.image(width, height, parts, "Confusion matrix")
    return Markup('<div class="scroll" style="--natural:{}px">{}</div>').format(least, drawing)


def confused_pairs(data: Mapping[str, Any], most: int = 8) -> list[dict[str, Any]]:
    """The commonest mistakes: ``right``, ``said``, ``count`` and ``share`` of the right class."""
    labels, counts = data["labels"], np.array(data["counts"], dtype=np.int64)
    totals = np.maximum(counts.sum(axis=1), 1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [divmod(int(k), len(labels)) for k in order]
    return [
        {"right": labels[r], "said": labels[s], "count": int(counts[r, s]), "share": float(counts[r, s] / totals[r])}
        for r, s in pairs
        if counts[r, s]
    ]


def reliability(data: Mapping[str, Any], width: int = 400) -> Markup:
    """How often the model is right by how sure it says it is, over a histogram of how sure it is."""
    left, right, top, side, strip = 46, 24, 30, width - 70, 64
    height = top + side + 40 + strip + 14
    bins = data["bins"]
    most = max((one["count"] for one in bins), default=1)
    half = side / 15 * 0.42

    def x(value: float) -> float:
        return left + value * side

    def y(value: float) -> float:
        return top + (1 - value) * side

    parts = [
        svg.text("tick", 0, 12, "how often it is right"),
        svg.text("tick", width - right, height - 2, "how sure the model says it is", "end"),
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(svg.line("grid", left, y(tick), width - right, y(tick)))
        parts.append(svg.text("tick", left - 8, y(tick) + 4, f"{tick:.0%}", "end"))
        parts.append(svg.text("tick", x(tick), y(0) + 18, f"{tick:.0%}", "middle"))
    parts.append(svg.line("ideal", x(0), y(0), x(1), y(1)))
    for one in bins:
        start = x((one["low"] + one["high"]) / 2) - half
        said = f"says {one['confidence']:.0%}, is right {one['accuracy']:.0%} of {one['count']}"
        upper, lower = sorted((y(one["accuracy"]), y(one["confidence"])))
        parts.append(svg.rect("gap", start, upper, 2 * half, lower - upper))
        size = 3 + 5 * math.sqrt(one["count"] / most)
        parts.append(svg.dot("own", x(one["confidence"]), y(one["accuracy"]), size, title=said))
        tall = max(strip * one["count"] / most, 1)
        parts.append(svg.rect("histogram", start, y(0) + 34 + strip - tall, 2 * half, tall, title=said))
    return svg.image(width, height, parts, "Reliability diagram")


def shares(counts: Mapping[str, int], width: int = 420) -> Markup:
    """How many rows each class has, as bars; the commonest twenty."""
    shown = sorted(counts.items(), key=lambda pair: -pair[1])[:20]
    left, step = 110, 22
    most = max((count for _, count in shown), default=1)
    parts = []
    for place, (label, count) in enumerate(shown):
        y, long = step * place, max((width - left - 60) * count / most, 1)
        parts.append(svg.text("label", left - 10, y + 15, _short(label, 14), "end"))
        parts.append(svg.rect("histogram", left, y + 4, long, 14))
        parts.append(svg.text("tick", left + long + 6, y + 15, f"{count:,}"))
    return svg.image(width, step * len(shown) + 4, parts, "Rows of each class")


def histogram(counts: Sequence[int], across: str, note: str, width: int = 420, height: int = 150) -> Markup:
    """Counts over bins of equal width from 0 to 1."""
    left, bottom, top = 12, 30, 18
    most, step = max([*counts, 1]), (width - 2 * left) / max(len(counts), 1)
    floor = height - bottom
    parts = [svg.line("axis", left, floor, width - left, floor), svg.text("tick", left, 12, note)]
    for place, count in enumerate(counts):
        tall = (floor - top) * count / most
        title = f"{place / len(counts):.2f} to {(place + 1) / len(counts):.2f}: {count:,}"
        parts.append(svg.rect("histogram", left + place * step + 1, floor - tall, step - 2, tall, title))
    for share in (0, 0.5, 1):
        parts.append(svg.text("tick", left + share * (width - 2 * left), floor + 14, f"{share:g}", "middle"))
    parts.append(svg.text("tick", width / 2, floor + 26, across, "middle"))
    return svg.image(width, height, parts, f"Histogram: {across}")


def trade_off(
    across: str, upwards: str, points: Sequence[tuple[float, float, int]], kept: int | None = None, side: int = 340
) -> Markup:
    """One metric against another, joined in the order of the steps: ``(x, y, step)``; ``kept`` marks the step that was kept."""
    drawn = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if len(drawn) < 2:
        return Markup("")
    left, right, top, bottom = 46, 14, 30, 38
    x_low, x_high = padded([point[0] for point in drawn])
    y_low, y_high = padded([point[1] for point in drawn])

    def x(value: float) -> float:
        return left + (value - x_low) / (x_high - x_low) * (side - left - right)

    def y(value: float) -> float:
        return side - bottom - (value - y_low) / (y_high - y_low) * (side - bottom - top)

    parts = [svg.text("title", 0, 14, upwards), svg.text("tick", side - right, side - 4, f"{across} →", "end")]
    for tick in ticks(y_low, y_high, 5):
        parts.append(svg.line("grid", left, y(tick), side - right, y(tick)))
        parts.append(svg.text("tick", left - 8, y(tick) + 4, in_short(tick), "end"))
    parts += [svg.text("tick", x(tick), side - bottom + 18, in_short(tick), "middle") for tick in ticks(x_low, x_high, 4)]
    parts.append(svg.polyline("curve own", [(x(one), y(other)) for one, other, _ in drawn]))
    for one, other, step in drawn:
        big = step == kept
        parts.append(svg.dot("own" if big else "base", x(one), y(other), 6 if big else 3.5, f"step {step:,}"))
        if big:
            parts.append(svg.text("tick", x(one), y(other) - 10, "kept", "middle"))
    return svg.image(side, side, parts, f"{upwards} against {across}")


RENDERERS = {"confusion": confusion, "reliability": reliability}
"""How a task's :class:`~tunesmith.tasks.base.Chart` is drawn, by its kind."""


def _running_mean(points: Sequence[tuple[float, float]], reach: int) -> list[tuple[float, float]]:
    ys = [y for _, y in points]
    windows = (ys[max(k - reach, 0) : k + reach + 1] for k in range(len(ys)))
    return [(x, sum(w) / len(w)) for (x, _), w in zip(points, windows, strict=True)]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
