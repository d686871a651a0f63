"""The report's section on named data sets: what of each was asked for and drawn in training, and the verdict on each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith.evaluation.baselines import BASE_MODEL
from tunesmith.evaluation.results import Evaluation
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import plots, words

if TYPE_CHECKING:
    from tunesmith.report.page import Section
    from tunesmith.runs import Run


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The domains; None where data sets have no names."""
    from tunesmith.report import page

    composition = run.manifest.get("domains") or {}
    if not evaluation.domains and not composition:
        return None
    base = evaluation.baselines.get(BASE_MODEL)
    shown = page.environment().get_template("domains.html.j2")
    html = shown.render(
        drawn=_drawn(composition),
        weighed=bool(composition.get("weights")),
        epoch=composition.get("epoch", 0),
        balanced=run.recipe.training.sampling == "balanced",
        shared=page.stored(run, "data/report.json").get("care", {}).get("domains", {}).get("shared", {}),
        judged=_judged(evaluation),
        metrics=_metrics(evaluation),
        with_gap=bool(evaluation.domain_gap),
        with_base=base is not None and bool(base.domains),
        metric=evaluation.headline,
        split=evaluation.split,
        sentence=sentence(evaluation),
    )
    return page.Section("Domains", Markup(html))


def sentence(evaluation: Evaluation) -> str:
    """The worst domain, the mean over all, the gap, and those that training lacked, for people; empty without domains."""
    found, name = evaluation.domains, evaluation.headline
    unseen = [domain for domain, one in found.items() if one.unseen]
    parts = []
    if evaluation.worst_domain:
        worst = found[evaluation.worst_domain]
        value = words.number(name, worst.metrics[name].value)
        parts.append(f"{words.in_sentence(name)} is worst on {evaluation.worst_domain}, {value} (n = {worst.n:,})")
    if name in evaluation.domain_mean:
        mean = evaluation.domain_mean[name]
        range_ = words.interval(name, mean)
        parts.append(
            f"the mean over {len(found)} domains is {words.number(name, mean.value)}" + (f" ({range_})" if range_ else "")
        )
    if name in evaluation.domain_gap:
        parts.append(_gap(evaluation))
    if unseen:
        parts.append(f"not in training: {', '.join(unseen)}")
    return f"Domains: {'; '.join(parts)}." if parts else ""


def _gap(evaluation: Evaluation) -> str:
    """``the generalisation gap is 9.1 points (3.2 to 15.0): from clinic to outside``."""
    name, found = evaluation.headline, evaluation.domains
    gap = evaluation.domain_gap[name]
    outside = [domain for domain, one in found.items() if one.gap]
    ends = words.change_interval(name, gap)
    size = words.change(name, gap) + (f" ({ends})" if ends else "")
    inside = ", ".join(domain for domain in found if domain not in outside)
    return f"the generalisation gap from {inside} to {', '.join(outside)} is {size}, more being worse"


def composition_line(composition: Mapping[str, Any]) -> str:
    """What an epoch is made of, in a line for the terminal.

    >>> composition_line({"rows": {"clinic": 30, "lab": 70}, "drawn": {"clinic": 67, "lab": 33}, "epoch": 100})
    'data: of 100 draws an epoch 67 are of clinic (30 rows), 33 of lab (70 rows)'
    """
    drawn, rows = composition["drawn"], composition["rows"]
    parts = [
        f"{drawn[name]:,.0f}{' are' if not index else ''} of {name} ({rows[name]:,} rows)" for index, name in enumerate(rows)
    ]
    return f"data: of {composition['epoch']:,} draws an epoch " + ", ".join(parts)


def _drawn(composition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each domain of the training split: rows, the share asked for, draws of an epoch."""
    rows, weights = composition.get("rows", {}), composition.get("weights") or {}
    total, epoch = sum(weights.values()), composition.get("epoch") or 1
    return [
        {
            "name": name,
            "rows": count,
            "share": count / (sum(rows.values()) or 1),
            "weight": weights.get(name),
            "asked": weights[name] / total if name in weights else None,
            "drawn": composition["drawn"][name],
            "drawn_share": composition["drawn"][name] / epoch,
            "times": composition["drawn"][name] / count if count else None,
        }
        for name, count in rows.items()
    ]


def _judged(found: Evaluation) -> list[dict[str, Any]]:
    """Each domain with the headline metric, beside the base model's; then the mean over them, and all examples together."""
    name, base = found.headline, found.baselines.get(BASE_MODEL)
    rows: list[dict[str, Any]] = []
    for domain, one in found.domains.items():
        row: dict[str, Any] = {"name": domain, "n": one.n, "unseen": one.unseen, "sum": False}
        row |= {"worst": domain == found.worst_domain, "estimate": one.metrics.get(name)}
        if name in one.gap:
            row |= _gap_row(name, one.gap[name])
        beside = base.domains.get(domain) if base is not None else None
        if beside is not None and name in beside.differences:
            difference = beside.differences[name]
            row |= {
                "base": words.number(name, beside.metrics[name].value),
                "change": words.change(name, difference),
                "interval": words.change_interval(name, difference),
                "tone": words.tone_of(name, difference),
            }
        rows.append(row)
    for title, estimate in (("mean over the domains", found.domain_mean.get(name)), ("all examples", found.metrics.get(name))):
        if len(found.domains) > 1 and estimate is not None:
            rows.append({"name": title, "n": estimate.n, "unseen": False, "worst": False, "sum": True, "estimate": estimate})
    if name in found.domain_gap and rows:
        rows[-2 if len(found.domains) > 1 else -1] |= _gap_row(name, found.domain_gap[name])
    for row in rows:
        shown = row["estimate"]
        row["bar"] = plots.bar(shown) if shown is not None and 0 <= shown.value <= 1 else ""
    return rows


def _gap_row(name: str, gap: Estimate) -> dict[str, str]:
    """A gap as a cell: green or red where its interval lies on one side of 0."""
    settled = math.isfinite(gap.low) and math.isfinite(gap.high) and not gap.low <= 0 <= gap.high
    tone = ("worse" if gap.low > 0 else "better") if settled else "unclear"
    return {"gap": words.change(name, gap), "gap_interval": words.change_interval(name, gap), "gap_tone": tone}


def _metrics(found: Evaluation) -> list[dict[str, Any]]:
    """Every other metric of each domain, those first that are defined everywhere."""
    names = [name for one in found.domains.values() for name, value in one.metrics.items() if math.isfinite(value.value)]
    order = dict.fromkeys(name for name in names if name != found.headline)
    return [
        {"name": name, "values": [one.metrics.get(name) for one in found.domains.values()], "mean": found.domain_mean.get(name)}
        | ({"gap": _gap_row(name, found.domain_gap[name])} if name in found.domain_gap else {})
        for name in order
    ]
