"""What a metric does from round to round: over all rows, at the worst site, and between which values most sites are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesmith.report import svg, words
from tunesmith.report.ticks import ticks

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _FLOOR = 58.0, 536.0, 30.0, 258.0
_LINE = 14.0
"""Least distance between two names at the ends of lines."""


@dataclass(frozen=True)
class Judged:
    """One model over the sites, after so many rounds."""

    round: int
    whole: float
    """Over all rows; NaN where it is not known."""
    worst: float = math.nan
    low: float = math.nan
    """A tenth of the sites is below."""
    high: float = math.nan
    """A tenth of the sites is above."""


def chart(metric: str, points: Sequence[Judged], kept: int | None = None) -> Markup:
    """The metric by round; ``kept`` marks the round whose model was kept. Nothing where nothing was judged."""
    known = [one for one in points if any(map(math.isfinite, (one.whole, one.worst)))]
    if not known:
        return Markup("")
    values = [v for one in known for v in (one.whole, one.worst, one.low, one.high) if math.isfinite(v)]
    space = (max(values) - min(values)) * 0.08 or abs(max(values)) * 0.1 or 1.0
    low = min(values) - space
    low = max(low, 0.0) if min(values) >= 0 else low
    high = min(max(values) + space, 1.0) if max(values) <= 1 else max(values) + space
    first, last = known[0].round, max(known[-1].round, known[0].round + 1)

    def at(number: float, value: float) -> tuple[float, float]:
        x = _LEFT + (number - first) / (last - first) * (_RIGHT - _LEFT)
        return x, _FLOOR - (value - low) / (high - low) * (_FLOOR - _TOP)

    parts = [svg.text("title", 0, 14, words.metric_title(metric)), svg.text("tick", _RIGHT, HEIGHT - 6, "rounds", "end")]
    for tick in ticks(low, high, 5):
        y = at(first, tick)[1]
        parts += [
            svg.line("grid", _LEFT, y, _RIGHT, y),
            svg.text("tick", _LEFT - 8, y + 4, words.number(metric, tick), "end"),
        ]
    parts += [
        svg.text("tick", at(tick, low)[0], _FLOOR + 18, f"{tick:g}", "middle")
        for tick in ticks(first, last, 8)
        if tick == round(tick)
    ]
    if kept is not None and first <= kept <= last:
        x = at(kept, low)[0]
        parts += [svg.line("best", x, _TOP, x, _FLOOR), svg.text("tick", x, _TOP - 4, "kept", "middle")]
    band = [one for one in known if math.isfinite(one.low) and math.isfinite(one.high)]
    if len(band) > 1:
        around = [at(one.round, one.high) for one in band] + [at(one.round, one.low) for one in reversed(band)]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
        parts.append(Markup('<polygon points="{}" style="fill:var(--own);opacity:.14"/>').format(corners))
    ends: list[tuple[float, str, str]] = []
    for name, kind, line in (
        ("all rows", "own", [(one.round, one.whole) for one in known]),
        ("worst site", "base", [(one.round, one.worst) for one in known]),
    ):
        placed = [at(*point) for point in line if math.isfinite(point[1])]
        if placed:
            parts.append(svg.polyline(f"curve {kind}", placed))
            parts += [svg.dot(kind, *place, 3.2) for place in placed] if len(placed) <= 30 else []
            ends.append((placed[-1][1], name, kind))
    return svg.image(WIDTH, HEIGHT, [*parts, *_names(ends)], f"{words.metric_title(metric)} by round")


def _names(ends: Sequence[tuple[float, str, str]]) -> list[Markup]:
    """Each line's name at its end, set apart where they meet."""
    parts, before = [], -math.inf
    for y, name, kind in sorted(ends):
        before = max(y + 4, before + _LINE)
        parts.append(svg.text(f"mark {kind}", _RIGHT + 12, before, name))
    return parts
