"""The elements that figures are drawn of, as SVG text. ``kind`` is the class that the page's style sheet colours.

Everything that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape


def image(width: float, height: float, parts: Sequence[Markup], title: str) -> Markup:
    """A picture of ``width × height`` units, drawn at most a quarter larger."""
    start = Markup('<svg class="plot" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">')
    return start.format(round(width), round(height), round(width * 1.25), title) + Markup("").join(parts) + Markup("</svg>")


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    """From one point to another."""
    ends = ((name, f"{value:.1f}") for name, value in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True))
    return _element("line", kind, dict(ends))


def dot(kind: str, x: float, y: float, radius: float, title: str = "") -> Markup:
    """A filled circle; ``title`` is what it says when pointed at."""
    return _element("circle", f"dot {kind}", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius:.1f}"}, _title(title))


def rect(kind: str, x: float, y: float, width: float, height: float, title: str = "", shade: float | None = None) -> Markup:
    """A box; ``shade`` between 0 and 1 is left to the style sheet."""
    box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": f"{height:.1f}", "rx": "2"}
    return _element("rect", kind, box if shade is None else {**box, "style": f"--shade:{shade:.3f}"}, _title(title))


def text(kind: str, x: float, y: float, content: str, anchor: str = "start", turn: int = 0) -> Markup:
    """Words at a point, turned by ``turn`` degrees about it."""
    where = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return _element("text", kind, {**where, "transform": f"rotate({turn} {x:.1f} {y:.1f})"} if turn else where, escape(content))


def polyline(kind: str, points: Sequence[tuple[float, float]]) -> Markup:
    """A line through points."""
    return _element("polyline", kind, {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points)})


def _title(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text) if text else Markup("")


def _element(name: str, kind: str, values: Mapping[str, str], inside: Markup | None = None) -> Markup:
    given = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in values.items())
    return Markup('<{} class="{}"{}>{}</{}>').format(name, kind, given, inside or "", name)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Labels with the colours of their kinds; nothing for one alone."""
    items = Markup("").join(Markup('<span class="key {}">{}</span>').format(kind, label) for label, kind in entries)
    return Markup('<p class="legend">{}</p>').format(items) if len(entries) > 1 else Markup("")
