"""The pictures of a search: what was tried against what came of it, how trials learned, what mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tunesmith.recipe.template import inline
from tunesmith.report import svg, words
from tunesmith.report.ticks import ticks

Row = Mapping[str, Any]
"""A trial as ``search.json`` has it."""

RATIO = 10
"""A loss whose worst value is so many times its best is drawn by ratios."""

ABSENT = "not there"
"""Where keys stand whose condition does not hold."""


def parallel_width(record: Mapping[str, Any]) -> int:
    """Units that the axes of :func:`parallel` need beside each other."""
    return max(560, min(1000, 190 * (len(record["space"]) + 1)))


def parallel(record: Mapping[str, Any], height: int = 340) -> Markup:
    """Parallel coordinates: an axis for each searched key and one for the metric, a line for each trial.

    The best quarter is coloured, the winner is thick.
    """
    width = parallel_width(record)
    rows = [row for row in record["trials"] if row["value"] is not None and row["origin"] != "seed"]
    if len(rows) < 2 or not record["space"]:
        return Markup("")
    axes = [_axis(one, rows) for one in record["space"]]
    name, values = record["metric"], [row["value"] for row in rows]
    scale = Scale.of(values, record["sign"])
    top, floor, left, right = 44.0, height - 26.0, 70.0, width - 90.0
    step = (right - left) / len(axes)

    def y(share: float) -> float:
        return float(floor - share * (floor - top))

    def at(value: float) -> float:
        share = scale.share(value)
        return share if record["sign"] > 0 else 1 - share  # better is up

    parts: list[Markup] = []
    ranked = sorted(rows, key=lambda row: record["sign"] * row["value"])
    good = {row["number"] for row in ranked[-max(1, len(ranked) // 4) :]}
    for row in ranked:
        places = [(left + step * n, y(axis.place(row["values"]))) for n, axis in enumerate(axes)]
        places.append((right, y(at(row["value"]))))
        won = row["number"] == record["winner"]
        parts.append(svg.polyline("curve own" if won else "curve fine" if row["number"] in good else "curve thread", places))
    for n, axis in enumerate(axes):
        x = left + step * n
        parts += [svg.line("axis", x, top, x, floor), svg.text("label", x, 14 + 15 * (n % 2), axis.title, "middle")]
        parts += [svg.text("mark", x + 6, y(share) + 4, word) for share, word in axis.words]
    parts += [svg.line("axis", right, top, right, floor), svg.text("title", right, 14, words.metric_title(name), "middle")]
    parts += [svg.text("mark", right + 8, y(at(value)) + 4, words.number(name, value)) for value in scale.ticks()]
    return svg.image(width, height, parts, f"{len(rows)} trials: their values, and {words.metric_title(name)}")


class _axis:  # noqa: N801 (made like a function, one for each key)
    """One searched key: where its values stand between 0 and 1."""

    def __init__(self, told: Mapping[str, Any], rows: Sequence[Row]) -> None:
        self.key, self.title = told["key"], told["key"].partition(".")[2] or told["key"]
        self._named = [_plain(value) for value in told["values"]]
        found = [row["values"][self.key] for row in rows if self.key in row["values"]]
        if self._named:  # what a trial had that is not in the space: the recipe's own
            self._named += [value for value in dict.fromkeys(map(_plain, found)) if value not in self._named]
        self._log = told["log"]
        numbers = [float(value) for value in found if isinstance(value, int | float) and not isinstance(value, bool)]
        self._low = min([told["low"], *(numbers if not self._named else [])])
        self._high = max([told["high"], *(numbers if not self._named else [])])
        if self._log and self._low <= 0:
            self._log = False
        if len(found) < len(rows):
            self._named += [ABSENT] if self._named else []
        self.words = self._words()

    def place(self, values: Mapping[str, Any]) -> float:
        """Where a trial's value stands."""
        if self._named:
            word = _plain(values[self.key]) if self.key in values else ABSENT
            return (self._named.index(word) + 0.5) / len(self._named)
        value = values.get(self.key)
        return self._share(float(value)) if isinstance(value, int | float) else 0.0

    def _share(self, value: float) -> float:
        if self._high == self._low:
            return 0.5
        if self._log:
            return math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        return float((value - self._low) / (self._high - self._low))

    def _words(self) -> list[tuple[float, str]]:
        if self._named:
            return [((n + 0.5) / len(self._named), word[:18]) for n, word in enumerate(self._named)]
        if self._log:
            powers = range(math.ceil(math.log10(self._low)), math.floor(math.log10(self._high)) + 1)
            inner = [10.0**power for power in powers] or [self._low, self._high]
            return [(self._share(value), f"{value:g}") for value in inner]
        return [(self._share(value), f"{value:g}") for value in ticks(self._low, self._high, 4)]


def _plain(value: Any) -> str:
    return f"{value}" if isinstance(value, float | str) else inline(value)


def curves(record: Mapping[str, Any], width: int = 470, height: int = 280) -> Markup:
    """The metric of every trial by update; the winner's line is thick, those that were stopped end early."""
    drawn = [row for row in record["trials"] if any(value is not None for _, value in row["curve"])]
    points = [(step, value) for row in drawn for step, value in row["curve"] if value is not None]
    if len(points) < 2:
        return Markup("")
    left, right, top, floor = 56.0, width - 12.0, 30.0, height - 36.0
    most = max(step for step, _ in points)
    scale = Scale.of([value for _, value in points], record["sign"])

    def place(step: float, value: float) -> tuple[float, float]:
        return left + step / most * (right - left), floor - scale.share(value) * (floor - top)

    parts = [
        svg.text("title", 0, 14, words.metric_title(record["metric"])),
        svg.text("tick", right, height - 4, "update", "end"),
    ]
    for tick in scale.ticks():
        parts.append(svg.line("grid", left, place(0, tick)[1], right, place(0, tick)[1]))
        parts.append(svg.text("tick", left - 8, place(0, tick)[1] + 4, words.number(record["metric"], tick, unit=False), "end"))
    parts += [svg.text("tick", place(tick, scale.low)[0], floor + 18, f"{tick:,.0f}", "middle") for tick in ticks(0, most, 5)]
    for row in sorted(drawn, key=lambda row: row["number"] == record["winner"]):
        line = [place(step, value) for step, value in row["curve"] if value is not None]
        kind = "curve own" if row["number"] == record["winner"] else "curve thread"
        parts.append(svg.polyline(kind, line))
        parts.append(svg.dot("own" if kind == "curve own" else "majority", *line[-1], 3.0, f"trial {row['number']}"))
    return svg.image(width, height, parts, f"{words.metric_title(record['metric'])} of each trial by update")


def best_so_far(record: Mapping[str, Any], width: int = 470, height: int = 280) -> Markup:
    """What each trial came to, in their order, and the best up to there."""
    rows = [row for row in record["trials"] if row["value"] is not None and row["origin"] != "seed"]
    if len(rows) < 2:
        return Markup("")
    left, right, top, floor = 56.0, width - 12.0, 30.0, height - 36.0
    scale = Scale.of([row["value"] for row in rows], record["sign"])
    last = max(row["number"] for row in rows)

    def place(number: float, value: float) -> tuple[float, float]:
        return left + number / max(last, 1) * (right - left), floor - scale.share(value) * (floor - top)

    parts = [svg.text("title", 0, 14, f"Best {words.in_sentence(record['metric'])} so far")]
    parts.append(svg.text("tick", right, height - 4, "trial", "end"))
    for tick in scale.ticks():
        parts.append(svg.line("grid", left, place(0, tick)[1], right, place(0, tick)[1]))
        parts.append(svg.text("tick", left - 8, place(0, tick)[1] + 4, words.number(record["metric"], tick, unit=False), "end"))
    parts += [svg.text("tick", place(tick, scale.low)[0], floor + 18, f"{tick:,.0f}", "middle") for tick in ticks(0, last, 5)]
    best: list[tuple[float, float]] = []
    top_value = -math.inf
    for row in rows:
        if record["sign"] * row["value"] > top_value:
            best += [place(row["number"], best_value(record, top_value))] if best else []
            top_value = record["sign"] * row["value"]
            best.append(place(row["number"], row["value"]))
        title = f"trial {row['number']}: {words.number(record['metric'], row['value'])}"
        parts.append(svg.dot("base" if row["status"] == "stopped" else "own", *place(row["number"], row["value"]), 3.0, title))
    best.append(place(last, best_value(record, top_value)))
    parts.append(svg.polyline("curve own", best))
    return svg.image(width, height, parts, "The best value so far, trial by trial")


def best_value(record: Mapping[str, Any], score: float) -> float:
    """A score, of which more is better, as the metric's value."""
    return float(record["sign"] * score)


def importance(record: Mapping[str, Any], width: int = 470) -> Markup:
    """The share of the variance that each key explains, as bars."""
    shares: Mapping[str, float] = record["importances"]
    left, row, parts = 180.0, 24.0, []
    most = max(shares.values(), default=0.0) or 1.0
    for place, (key, share) in enumerate(sorted(shares.items(), key=lambda pair: -pair[1])):
        y, long = row * place, max((width - left - 60) * share / most, 1.0)
        parts.append(svg.text("label", left - 10, y + 16, key.partition(".")[2] or key, "end"))
        parts.append(svg.rect("histogram", left, y + 4, long, 15))
        parts.append(svg.text("tick", left + long + 6, y + 16, f"{share:.0%}"))
    return svg.image(width, row * len(shares) + 6, parts, "Importance of each hyperparameter")


@dataclass(frozen=True)
class Scale:
    """Where a metric's values stand on an axis, between 0 and 1."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], sign: int) -> Scale:
        """The range to draw: without the worst outliers, which would flatten all else; they are drawn at its edge.

        Of a loss whose worst value is many times its best, ratios: what is good is told apart as well as what is bad.
        """
        found = sorted(values)
        low, high = found[len(found) // 20], found[-1 - len(found) // 20]
        if sign < 0 and found[0] > 0 and high >= RATIO * found[0]:
            return cls(found[0] / 1.15, high * 1.15, log=True)
        space = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return cls(max(low - space, 0.0) if found[0] >= 0 else low - space, high + space)

    def share(self, value: float) -> float:
        """Where a value stands; beyond an end, at it."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers to write beside the axis."""
        if not self.log:
            return ticks(self.low, self.high, 5)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        steps = (1, 2, 5) if len(powers) < 4 else (1,)
        return [n * 10.0**power for power in powers for n in steps if self.low <= n * 10.0**power <= self.high]
