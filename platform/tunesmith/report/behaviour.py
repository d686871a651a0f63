"""The samples of the suite ``behaviour``: the cases that failed, with what was changed in a text marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tunesmith.evaluation.results import SuiteResult
from tunesmith.report import page
from tunesmith.report.damage import marked


def samples(suite: SuiteResult) -> Markup:
    """A card for each failure that was kept."""
    template = page.environment().get_template("behaviour.html.j2")
    return Markup(template.render(cards=[_card(one) for one in suite.examples]))


def _card(one: Mapping[str, Any]) -> dict[str, Any]:
    changed = one.get("changed")
    return {**one, "marked": None if changed is None else marked(one["text"], changed)}
