"""What every page and every part of a page is made with: the templates and their filters, sections, stored findings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith import storage
from tunesmith.report import words

if TYPE_CHECKING:
    import jinja2

    from tunesmith.runs import Run


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    html: Markup
    """Its content; whoever makes it has escaped what comes from data."""
    style: str = ""
    """Rules of its own for the page's style sheet."""
    anchor: str = ""
    """Its id in the page."""


@cache
def environment() -> jinja2.Environment:
    """The templates of the report, with the filters that they use."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tunesmith.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "number": words.number,
        "interval": words.interval,
        "metric_title": words.metric_title,
        "bytes": _bytes,
        "shown": _shown,
        "percent": lambda share: f"{100 * share:.1f}\u202f%" if share < 0.995 or share == 1 else f"{100 * share:.2f}\u202f%",
    }
    return made


def resource(name: str) -> str:
    """A file beside the templates, as text."""
    from importlib.resources import files

    return files("tunesmith.report").joinpath("templates", name).read_text(encoding="utf-8")


def stored(run: Run, name: str) -> dict[str, Any]:
    """A JSON file of the run; empty where it is not there, or damaged."""
    try:
        found = storage.read_json(run.file(name))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _bytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 2**30:.1f} GiB"


def _shown(value: Any) -> str:
    """A reference or an answer as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)
