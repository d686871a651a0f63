"""How results show themselves in a notebook: a small table of HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

MOST = 6
"""Metrics that are shown; the report has all."""


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], foot: str = "") -> str:
    """A table below its title and above a line of words, all of it escaped.

    >>> table("<a>", ["Metric"], [["f1"]], "b & c")
    '<p><b>&lt;a&gt;</b></p><table><tr><th>Metric</th></tr><tr><td>f1</td></tr></table><p>b &amp; c</p>'
    """
    lines = [_row(row, "td") for row in rows]
    inner = f"<table>{_row(head, 'th')}{''.join(lines)}</table>" if lines else ""
    return f"<p><b>{escape(title)}</b></p>{inner}" + (f"<p>{escape(foot)}</p>" if foot else "")


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A number and the interval that it has.

    >>> with_interval(0.91234, 0.9, 0.95), with_interval(0.5, None, None), with_interval(math.nan, None, None)
    ('0.9123 [0.9000, 0.9500]', '0.5000', '–')
    """
    known = [number for number in (value, low, high) if number is not None and math.isfinite(number)]
    if len(known) == 3:
        return "{:.4f} [{:.4f}, {:.4f}]".format(*known)
    return f"{value:.4f}" if value is not None and math.isfinite(value) else "–"


def first(headline: str | None, names: Iterable[str]) -> list[str]:
    """The metrics to show: the headline, then those that come first, none of a single class.

    >>> first("f1_macro", ["loss", "accuracy", "f1_macro", "f1/cat"])
    ['f1_macro', 'loss', 'accuracy']
    """
    plain = [name for name in names if "/" not in name]
    return sorted(plain, key=lambda name: name != headline)[:MOST]


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
