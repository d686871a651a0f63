"""The report's section on groups that training was to treat alike: what was done, and what the suite ``fairness`` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith.report import words

if TYPE_CHECKING:
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.report.page import Section
    from tunesmith.runs import Run

RECORD = "groups"
"""What the manifest calls it."""
MOST = 30
"""Groups shown, the largest."""

FOUND = ("equalized_odds_difference", "demographic_parity_difference", "accuracy_difference", "worst_group_accuracy")
"""Of the suite ``fairness``, in the order of the section."""

DONE = {
    "reweigh": "Each example weighed P(group) P(class) / P(group, class) in the loss (Kamiran and Calders 2012), so that every "
    "class had the same share in every group.",
    "balanced": "Every epoch drew each group equally often, as many examples in all as there are.",
}


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """What was done for the groups; None where the recipe names none."""
    from tunesmith.report import page

    found = run.manifest.get(RECORD)
    if not found:
        return None
    template = page.environment().get_template("groups.html.j2")
    shown = template.render(
        columns=found["columns"],
        done=DONE[found["method"]],
        classes=found["classes"],
        rows=_rows(found),
        total=len(found["groups"]),
        reweighed=found["method"] == "reweigh",
        fairness=_fairness(evaluation),
        ran="fairness" in evaluation.suites,
    )
    return page.Section("Groups treated alike", Markup(shown))


def record(
    columns: Sequence[str], method: str, names: Sequence[str], classes: Sequence[str], counts: Any, drawn: Sequence[float]
) -> dict[str, Any]:
    """What the manifest says of them, as plain data.

    ``counts`` ``[groups, classes]`` are the rows (no classes where examples have not one each), ``drawn`` each group's draws in
    an epoch.
    """
    groups = [
        {"name": name, "rows": [int(n) for n in row], "drawn": float(times)}
        for name, row, times in zip(names, counts, drawn, strict=True)
    ]
    return {"columns": list(columns), "method": method, "classes": list(classes), "groups": groups}


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The largest groups with their classes, before and after."""
    whole = [sum(column) for column in zip(*(one["rows"] for one in found["groups"]), strict=True)]
    total = sum(whole) or 1
    shown = []
    for one in found["groups"][:MOST]:
        n = sum(one["rows"]) or 1
        weights = [part * n / total / count if count else None for part, count in zip(whole, one["rows"], strict=True)]
        classes = zip([count / n for count in one["rows"]], weights, strict=True)
        shown.append(
            {"name": one["name"], "n": sum(one["rows"]), "share": n / total, "drawn": one["drawn"], "classes": list(classes)}
        )
    return shown


def _fairness(evaluation: Evaluation) -> list[dict[str, str]]:
    """The suite's measures of the groups that are farthest apart."""
    suite = evaluation.suites.get("fairness")
    known = suite.measures if suite is not None else {}
    return [
        {
            "title": words.metric_title(name),
            "value": words.number(name, known[name].value),
            "interval": words.interval(name, known[name]),
        }
        for name in FOUND
        if name in known
    ]
