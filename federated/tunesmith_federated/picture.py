"""Who has what: each site's rows as a bar, coloured by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from markupsafe import Markup

from tunesmith.report import svg

MOST_BARS = 40
"""Sites up to which each has a line with its name."""
MOST_COLUMNS = 160
"""Narrow columns beyond, one for every so many sites."""
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#e69f00", "#8c6bb1", "#999933", "#332288")
"""Of classes: Paul Tol's bright scheme, which people with any colour vision tell apart, and four more."""
OTHER = "#9aa0ab"

Counts = Mapping[str, Mapping[str, int]]


def picture(counts: Counts) -> Markup:
    """The sites of ``counts`` (site → class → rows) as stacked bars, with a legend and a sentence; nothing without sites."""
    if not counts:
        return Markup("")
    colours = _colours(counts)
    drawn = _bars(counts, colours) if len(counts) <= MOST_BARS else _columns(counts, colours)
    said = Markup('<p class="note">{}</p>').format(sentence(counts))
    return said + drawn + _legend(counts, colours)


def sentence(counts: Counts) -> str:
    """How much sites have, and how one-sided they are, in words.

    >>> print(sentence({"a": {"cat": 30, "dog": 10}, "b": {"cat": 10, "dog": 30}}).replace(". ", ".\\n"))
    2 sites hold 40 rows each.
    The commonest class of a site is 75 % of its rows on average; of all rows it is 50 %.
    """
    sizes = [sum(site.values()) for site in counts.values()]
    found = f"{len(sizes):,} sites hold " if len(sizes) != 1 else "1 site holds "
    found += f"{min(sizes):,} to {max(sizes):,} rows each, {round(median(sizes)):,} in the middle."
    if min(sizes) == max(sizes):
        found = found.partition(" to ")[0] + (" rows each." if len(sizes) != 1 else " rows.")
    total = _total(counts)
    if len(total) > 1:
        own = fmean(max(site.values()) / max(sum(site.values()), 1) for site in counts.values() if site)
        whole = max(total.values()) / max(total.total(), 1)
        found += f" The commonest class of a site is {own:.0%} of its rows on average; of all rows it is {whole:.0%}."
    return found.replace("%", " %")


def _total(counts: Counts) -> Counter[str]:
    total: Counter[str] = Counter()
    for site in counts.values():
        total.update(site)
    return total


def _colours(counts: Counts) -> dict[str, str]:
    """The commonest classes have a colour each, in the order of their names."""
    common = sorted(name for name, _ in _total(counts).most_common(len(COLOURS)))
    return dict(zip(common, COLOURS, strict=False))


def _bars(counts: Counts, colours: Mapping[str, str]) -> Markup:
    """A line for each site."""
    left, right, step, width = 126, 64, 22, 640
    most = max(1, *(sum(site.values()) for site in counts.values()))
    parts: list[Markup] = []
    for place, (name, site) in enumerate(counts.items()):
        x, y, size = float(left), step * place + 4, sum(site.values())
        parts.append(svg.text("label", left - 10, y + 12, name if len(name) <= 16 else f"{name[:15]}…", "end"))
        for label, rows in _stacked(site, colours):
            wide = (width - left - right) * rows / most
            parts.append(_box(x, y, wide, step - 7, colours.get(label, OTHER), _said(name, label, rows, size)))
            x += wide
        parts.append(svg.text("tick", x + 6, y + 12, f"{size:,}"))
    return svg.image(width, step * len(counts) + 6, parts, "Rows of each site by class")


def _columns(counts: Counts, colours: Mapping[str, str]) -> Markup:
    """A column for every so many sites, the largest first; each is one site: means of several would look alike."""
    ordered = sorted(counts.items(), key=lambda pair: -sum(pair[1].values()))
    stride = -(-len(ordered) // MOST_COLUMNS)
    shown = ordered[::stride]
    left, top, width, height = 54, 20, 640, 230
    floor, step = height - 24, (width - left - 6) / len(shown)
    most = max(sum(shown[0][1].values()), 1)
    parts = [
        svg.text("tick", left, 12, "rows"),
        svg.text("tick", left - 8, top + 8, f"{most:,}", "end"),
        svg.text("tick", left - 8, floor, "0", "end"),
        svg.line("axis", left, floor, width - 6, floor),
    ]
    for place, (name, site) in enumerate(shown):
        y, size = float(floor), sum(site.values())
        for label, rows in _stacked(site, colours):
            tall = (floor - top) * rows / most
            y -= tall
            box = (left + place * step, y, step * 0.86, tall)
            parts.append(_box(*box, colours.get(label, OTHER), _said(name, label, rows, size)))
    every = "every site" if stride == 1 else f"one of every {stride} sites"
    parts.append(svg.text("tick", width - 6, height - 6, f"{every}, by size", "end"))
    return svg.image(width, height, parts, "Rows of sites by class")


def _stacked(site: Mapping[str, int], colours: Mapping[str, str]) -> list[tuple[str, int]]:
    """The classes of a site in the order of the legend, those without a colour as one at the end."""
    named = [(label, site[label]) for label in colours if site.get(label)]
    rest = sum(rows for label, rows in site.items() if label not in colours)
    return [*named, ("the other classes", rest)] if rest else named


def _said(site: str, label: str, rows: int, size: int) -> str:
    return f"{site}: {rows:,} rows" + (f" of {label} ({rows / max(size, 1):.0%})" if label else "")


def _box(x: float, y: float, width: float, height: float, colour: str, title: str) -> Markup:
    box = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{:.2f}" fill="{}"><title>{}</title></rect>')
    return box.format(x, y, max(width, 0.4), max(height, 0.4), colour, title)


def _legend(counts: Counts, colours: Mapping[str, str]) -> Markup:
    """The classes with their colours; nothing for one alone."""
    total = _total(counts)
    entries: Sequence[tuple[str, str]] = list(colours.items())
    if len(total) > len(colours):
        entries = [*entries, (f"{len(total) - len(colours):,} more", OTHER)]
    if len(entries) < 2:
        return Markup("")
    key = Markup('<span><svg width="11" height="11" style="display:inline-block;vertical-align:-1px;margin-right:6px">')
    key += Markup('<rect width="11" height="11" rx="2" fill="{}"/></svg>{}</span>')
    return Markup('<p class="legend">{}</p>').format(Markup("").join(key.format(colour, label) for label, colour in entries))
