"""``gate.html``: whether the model may be released, and what each rule rests on."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tunesmith.evaluation.gate import Check, GateResult, Outcome
from tunesmith.evaluation.measures import metric_of
from tunesmith.report import gate_words, words
from tunesmith.report.page import environment, resource

TONES = {"passed": "better", "failed": "worse", "not settled": "open"}


def render(found: GateResult) -> str:
    """The page as text."""
    return (
        environment()
        .get_template("gate.html.j2")
        .render(
            found=found,
            sentence=gate_words.sentence(found),
            rows=[_row(one) for one in found.outcomes],
            style=Markup(resource("report.css")),
        )
    )


def _row(one: Outcome) -> dict[str, Any]:
    return {
        "name": one.name,
        "status": one.status,
        "tone": TONES[one.status],
        "blocks": one.blocks,
        "line": gate_words.line(one),
        "checks": [_check(part) for part in one.checks] if len(one.checks) > 1 else [],
    }


def _check(one: Check) -> dict[str, str]:
    sign = {"min": "≥", "max": "≤", "margin": "margin"}[one.limit]
    return {
        "measure": one.measure,
        "limit": f"{sign} {words.number(metric_of(one.measure), one.threshold)}",
        "status": one.status,
        "tone": TONES[one.status],
        "n": f"{one.judged.n:,}",
        "found": gate_words.check(one),
    }
