"""``comparison.html``: several ways of training side by side, in one file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith import storage
from tunesmith.report import choices, plots, words
from tunesmith.report.html import REPORT
from tunesmith.report.page import environment, resource
from tunesmith.runs.words import span
from tunesmith.tasks.metrics import greater_is_better

if TYPE_CHECKING:
    from tunesmith.verbs.compare_recipes import Outcome, RecipeComparison


def render(found: RecipeComparison) -> str:
    """The page as text."""
    name = found.headline
    old = [metric for metric in found.outcomes[0].metrics if "/" in metric]
    shown = [metric for metric in found.outcomes[0].metrics if not metric.endswith("_weighted") or metric == name]
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            found=found,
            several=len(found.outcomes) > 1,
            sentence=_sentence(found),
            figures=[{"title": _title(metric), "svg": _figure(metric, found)} for metric in (name, *old)],
            traded=[
                choices.choices(f"{words.metric_title(name)}, new", words.metric_title(one), name, _points(found, one))
                for one in old
            ],
            metrics=[name, *old, *(metric for metric in shown if metric not in (name, *old))],
            rows=[_row(one, found) for one in found.outcomes],
            style=Markup(resource("report.css")),
        )
    )


def _points(found: RecipeComparison, old: str) -> list[choices.Choice]:
    """Every variant by its headline metric and what it kept of an old set."""
    name = found.headline
    return [
        choices.Choice(one.name, one.metrics[name], one.metrics[old], "own" if one.differences else "base")
        for one in found.outcomes
        if old in one.metrics
    ]


def _title(metric: str) -> str:
    """A metric's name over its figure.

    >>> _title("accuracy/clean"), _title("accuracy")
    ('Accuracy on old data (clean)', 'Accuracy')
    """
    base, _, old = metric.partition("/")
    return f"{words.metric_title(base)} on old data ({old})" if old else words.metric_title(base)


def _figure(metric: str, found: RecipeComparison) -> Markup:
    """A metric of every variant; what is left of old data is seen beside what was learned."""
    rows = [
        plots.Row(one.name, one.metrics[metric], "own" if one.differences else "base")
        for one in found.outcomes
        if metric in one.metrics
    ]
    return plots.intervals(metric, rows)


def _sentence(found: RecipeComparison) -> str:
    """What came out, in one line: the variant that is clearly best, or that none is; of one alone, its value."""
    name, first = found.headline, found.outcomes[0]
    if len(found.outcomes) == 1:
        return f"{first.name}: {words.in_sentence(name)} {words.number(name, first.metrics[name].value)}"
    clear = [one for one in found.outcomes[1:] if words.tone_of(name, one.differences[name]) == "better"]
    if not clear:
        return f"No variant is clearly better than {first.name} in {words.in_sentence(name)}"
    sign = 1 if greater_is_better(name) else -1
    best = max(clear, key=lambda one: sign * one.metrics[name].value)
    return f"{best.name}: {words.in_sentence(name)} {words.change(name, best.differences[name])} against {first.name}"


def _row(one: Outcome, found: RecipeComparison) -> dict[str, Any]:
    return {
        "name": one.name,
        "changed": [f"{key}: {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in one.changed.items()],
        "time": span(one.seconds) if one.seconds is not None else "",
        "reports": [_beside(path) for path in one.runs],
        "cells": {metric: _cell(metric, one) for metric in one.metrics},
    }


def _cell(metric: str, one: Outcome) -> Mapping[str, str]:
    more = one.differences.get(metric)
    return {
        "value": words.number(metric, one.metrics[metric].value),
        "interval": words.interval(metric, one.metrics[metric]),
        "change": words.change(metric, more) if more else "",
        "change_interval": words.change_interval(metric, more) if more else "",
        "tone": words.tone_of(metric, more) if more else "unclear",
    }


def _beside(path: str) -> str:
    """A run's report as a link from the page, which lies beside the runs."""
    return f"{storage.name(path)}/{REPORT}"
