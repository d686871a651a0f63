"""Charts of lines with their names at their ends: what a metric does along severities, how an attack trades its mistakes.

The lines are told apart by their names and not by colour, so that ten of them can be read, and in print too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tunesmith.report import svg, words
from tunesmith.report.ticks import ticks

LINE = 13.0
"""Height of a name in pixels: names are set apart by so much."""
LEAST = 1e-3
"""Where axes on a logarithmic scale begin, unless a point is further down."""
LETTER = 6.3
"""About how wide a letter is."""

Point = tuple[float, float]


def lines(data: Mapping[str, Any], width: int = 560, height: int = 320) -> Markup:
    """Values along an axis.

    ``data`` has the titles of the axes (``x``, ``y``; ``y`` may be a metric's name, which says how values are written) and
    ``series``: ``label``, ``points`` and, where one stands out, ``strong``. ``log`` is for two axes of rates from 0 to 1;
    ``diagonal`` draws where chance would be; ``whole`` says that steps along x are whole numbers.
    """
    series = [{**one, "points": [point for point in one["points"] if all(map(math.isfinite, point))]} for one in data["series"]]
    series = [one for one in series if one["points"]]
    if not series:
        return Markup("")
    room = 16 + LETTER * max(len(str(one["label"])) for one in series)
    plot = _Plot(data, series, width - room, height)
    parts = [
        svg.text("title", 0, 14, words.metric_title(data["y"])),
        svg.text("tick", width - room, height - 4, data["x"], "end"),
    ]
    parts += plot.grid()
    ends = _spread([plot.at(one["points"][-1])[1] for one in series], 34, height - 40)
    alone = len(series) == 1
    for one, end in zip(series, ends, strict=True):
        strong = alone or bool(one.get("strong"))
        placed = [plot.at(point) for point in one["points"]]
        parts.append(svg.polyline("curve own" if strong else "curve thread", placed))
        if len(placed) <= 12:
            parts += [
                svg.dot(
                    "own" if strong else "majority", *place, 3.5 if strong else 2.5, f"{one['label']}: {plot.said(point[1])}"
                )
                for place, point in zip(placed, one["points"], strict=True)
            ]
        parts.append(svg.line("leader", placed[-1][0] + 4, placed[-1][1], width - room + 10, end))
        parts.append(svg.text("mark own" if strong else "mark", width - room + 12, end + 4, str(one["label"])))
    return svg.image(width, height, parts, f"{words.metric_title(data['y'])} by {data['x']}")


class _Plot:
    """Where points are, and the grid behind them."""

    def __init__(self, data: Mapping[str, Any], series: Sequence[Mapping[str, Any]], right: float, height: float) -> None:
        self.left, self.right, self.top, self.floor = 60.0, right, 28.0, height - 38.0
        self.metric, self.log, self.diagonal = data["y"], bool(data.get("log")), bool(data.get("diagonal"))
        points = [(float(x), float(y)) for one in series for x, y in one["points"]]
        self.whole = sorted({x for x, _ in points}) if data.get("whole") else []
        if self.log:
            self.xs = self.ys = (min(LEAST, *(v for point in points for v in point if v > 0)), 1.0)
            return
        xs, ys = [x for x, _ in points], [y for _, y in points]
        space = (max(ys) - min(ys)) * 0.08 or abs(max(ys)) * 0.1 or 1.0
        low = min(ys) - space
        self.xs = (min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
        self.ys = (max(low, 0.0) if min(ys) >= 0 else low, min(max(ys) + space, 1.0) if max(ys) <= 1 else max(ys) + space)

    def at(self, point: Point) -> Point:
        """A point's place in the picture."""
        x, y = (self._share(value, ends) for value, ends in zip(point, (self.xs, self.ys), strict=True))
        return self.left + x * (self.right - self.left), self.floor - y * (self.floor - self.top)

    def said(self, value: float) -> str:
        """A value as the metric is written."""
        return f"{100 * value:.3g}\u202f%" if self.log else words.number(self.metric, value)

    def grid(self) -> list[Markup]:
        """Lines and numbers of both axes."""
        parts = []
        for tick in self._ticks(self.ys, 5):
            y = self.at((self.xs[0], tick))[1]
            parts += [
                svg.line("grid", self.left, y, self.right, y),
                svg.text("tick", self.left - 8, y + 4, self.said(tick), "end"),
            ]
        for tick in self.whole or self._ticks(self.xs, 5):
            x = self.at((tick, self.ys[0]))[0]
            parts.append(svg.text("tick", x, self.floor + 18, f"{tick:g}" if self.whole else self.said(tick), "middle"))
        if self.diagonal:
            ends = [self.at((self.xs[0], self.ys[0])), self.at((self.xs[1], self.ys[1]))]
            parts.append(svg.line("ideal", *ends[0], *ends[1]))
        return parts

    def _ticks(self, ends: Point, count: int) -> list[float]:
        if not self.log:
            return ticks(*ends, count)
        return [10.0**power for power in range(math.ceil(math.log10(ends[0]) - 1e-9), 1)]

    def _share(self, value: float, ends: Point) -> float:
        if self.log:
            value, ends = math.log(max(value, ends[0])), (math.log(ends[0]), math.log(ends[1]))
        return (value - ends[0]) / (ends[1] - ends[0])


def _spread(wanted: Sequence[float], top: float, floor: float) -> list[float]:
    """Heights as near to those wanted as may be, none within :data:`LINE` of another, between two ends where there is room.

    >>> _spread([50, 50, 90], 0, 100)
    [43.5, 56.5, 90.0]
    """
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    blocks: list[list[float]] = []  # of heights: their number, the sum of the wish for the first of them
    for place in order:
        blocks.append([1, wanted[place]])
        while len(blocks) > 1 and _start(blocks[-2]) + LINE * blocks[-2][0] > _start(blocks[-1]):
            n, wish = blocks.pop()
            blocks[-1] = [blocks[-1][0] + n, blocks[-1][1] + wish - n * blocks[-1][0] * LINE]
    heights = [_start(block) + LINE * step for block in blocks for step in range(int(block[0]))]
    down = max(heights[-1] - floor, 0.0)
    heights = [max(height - down, top + LINE * step) for step, height in enumerate(heights)]
    found = [0.0] * len(wanted)
    for place, height in zip(order, heights, strict=True):
        found[place] = float(height)
    return found


def _start(block: Sequence[float]) -> float:
    """Where the first of a block of heights is."""
    return block[1] / block[0]
