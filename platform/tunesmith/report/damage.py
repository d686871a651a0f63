"""The samples of the suite ``robustness``: what was damaged, with what changed in a text marked, and images side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from markupsafe import Markup, escape

from tunesmith.evaluation.results import SuiteResult
from tunesmith.report import page


def samples(suite: SuiteResult) -> Markup:
    """One card for each kind of damage."""
    wide = "" if any(one["input"] == "image" for one in suite.examples) else " wide"
    template = page.environment().get_template("damage.html.j2")
    return Markup(template.render(cards=[_card(one) for one in suite.examples], wide=wide))


def marked(before: str, after: str) -> Markup:
    """The text after a change, with the words that it changed or added marked; where some are gone, a mark stands for them.

    >>> print(marked("two words here", "two wrods here"))
    two <mark>wrods</mark> here
    >>> print(marked("a <b> c", "a c"))
    a <del>&lt;b&gt; </del>c
    """
    one, other = re.findall(r"\S+|\s+", before), re.findall(r"\S+|\s+", after)
    parts = []
    for way, start, end, first, last in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        new, old = "".join(other[first:last]), "".join(one[start:end])
        if way == "equal":
            parts.append(escape(new))
        elif new.strip() or way != "delete":
            parts.append(Markup("<mark>{}</mark>").format(new.replace("\n", "↵\n") if new.strip() == "" else new))
        else:
            parts.append(Markup("<del>{}</del>").format(old))
    return Markup("").join(parts)


def _card(one: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows: of a text the least damage that misled the model, of an image every severity."""
    shown = [after for after in one["after"] if after["value"]]
    misled = [after for after in shown if after["correct"] is False]
    worst = (misled or shown[-1:] or [None])[0]
    text = None
    if one["input"] != "image" and worst is not None:
        text = marked(_plain(one["before"]), _plain(worst["value"]))
    return {**one, "title": one["kind"].replace("_", " "), "worst": worst, "text": text, "shown": shown}


def _plain(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)
