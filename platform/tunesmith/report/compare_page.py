"""``comparison.html`` of two models: the verdict, every metric side by side, and the examples that changed, to be filtered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tunesmith.evaluation.comparison import Compared, Comparison
from tunesmith.evaluation.decisions import Verdict, turned
from tunesmith.evaluation.fairness_compared import Pair
from tunesmith.evaluation.flips import Flip
from tunesmith.evaluation.measures import is_better_when_more
from tunesmith.report import compare_words, filters, plots, words
from tunesmith.report.page import environment, resource
from tunesmith.tasks.metrics import greater_is_better

KINDS = ("broken", "fixed", "other")
TONES: dict[Verdict, str] = {"better": "better", "worse": "worse", "equivalent": "unclear", "inconclusive": "unclear"}


def render(found: Comparison) -> str:
    """The page as text."""
    name = found.metrics[0]
    main = found.measures[name]
    chosen, classes_of = _filters(found.examples)
    rows = [plots.Row("A", main.a), plots.Row("B", main.b, "base")]
    twice = "loss" if "log_loss" in found.measures else ""
    plain = [metric for metric in found.measures if "/" not in metric and metric not in (*found.metrics, twice)]
    classes = [metric for metric in found.measures if "/" in metric and metric not in found.metrics]
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            found=found,
            name=name,
            main=main,
            tone=TONES[found.verdict],
            sentence=compare_words.sentence(found),
            details=compare_words.details(found),
            figure=plots.intervals(name, rows),
            metrics=[_row(metric, found.measures[metric]) for metric in (*found.metrics, *plain)],
            classes=[_row(metric, found.measures[metric]) for metric in classes],
            slices={
                column: [{**_row(name, one), "title": value} for value, one in values.items()]
                for column, values in found.slices.items()
            },
            margin=compare_words.margin(name, found.margin),
            fairness=_fairness(found),
            filters=chosen,
            examples=[{"flip": one, "reference": classes_of.get(_reference(one), "")} for one in found.examples],
            style=Markup(resource("report.css")),
        )
    )


def _row(name: str, one: Compared) -> dict[str, Any]:
    return {
        "title": words.metric_title(name),
        "lower": not greater_is_better(name),
        "n": one.difference.n,
        "a": words.number(name, one.a.value),
        "a_interval": words.interval(name, one.a),
        "b": words.number(name, one.b.value),
        "b_interval": words.interval(name, one.b),
        "change": words.change(name, one.difference),
        "change_interval": words.change_interval(name, one.difference),
        "tone": TONES[one.verdict],
        "verdict": one.verdict,
        "p": compare_words.p_value(one.adjusted),
        "needed": compare_words.examples(one.needed) if one.needed and one.needed > one.difference.n else "",
    }


def _fairness(found: Comparison) -> dict[str, Any]:
    """The tables of both models' groups; empty where the suite has not judged both."""
    both = found.fairness
    if both is None:
        return {}
    every = {column: [_pair(name, name, one) for name, one in named.items()] for column, named in both.measures.items()}
    return {
        "training": [text for text in (_trained("A", both.a_training), _trained("B", both.b_training)) if text],
        "worst": every.pop("", []),
        "columns": {column.replace("+", " and "): rows for column, rows in every.items()},
        "groups": {
            title: [_pair("accuracy", name, one) for name, one in named.items()] for title, named in both.groups.items()
        },
    }


def _trained(who: str, how: str) -> str:
    return f"{who} was trained with data.groups: {how}." if how else ""


def _pair(metric: str, title: str, one: Pair) -> dict[str, Any]:
    more = is_better_when_more(metric)
    gain = turned(one.difference, more)
    settled = math.isfinite(gain.low) and math.isfinite(gain.high) and not gain.low <= 0 <= gain.high
    return {
        "title": words.metric_title(title) if title == metric else title,
        "lower": not more,
        "n": one.a.n,
        "a": words.number(metric, one.a.value),
        "a_interval": words.interval(metric, one.a),
        "b": words.number(metric, one.b.value),
        "b_interval": words.interval(metric, one.b),
        "change": words.change(metric, one.difference),
        "change_interval": words.change_interval(metric, one.difference),
        "tone": ("better" if gain.low > 0 else "worse") if settled else "unclear",
    }


def _filters(examples: Sequence[Flip]) -> tuple[list[filters.Filter], dict[str, str]]:
    """What the examples can be filtered by, and the class that each right answer goes by."""
    counts = {kind: sum(one.kind == kind for one in examples) for kind in KINDS}
    chips = {kind: f"{'another wrong answer' if kind == 'other' else kind} {count}" for kind, count in counts.items()}
    by_kind = filters.Filter("k", f"all {len(examples)}", chips)
    values = [[_reference(one)] if isinstance(one.reference, str) else [] for one in examples]
    by_answer, classes = filters.by_value("r", "every right answer", values)
    return [by_kind, *([by_answer] if by_answer else [])], classes


def _reference(one: Flip) -> str:
    return one.reference if isinstance(one.reference, str) else ""
