"""The report's section on what was forgotten: old against new while training went on, and before against after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith.evaluation.results import Evaluation, Retained
from tunesmith.report import plots, words
from tunesmith.report.page import Section

if TYPE_CHECKING:
    from tunesmith.runs import Run

FIRST = ("accuracy", "f1_macro", "f1", "precision", "recall", "token_accuracy", "log_loss", "loss", "ece")
"""Metrics of a set that are shown, beside the headline."""


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """What is left of each retention set; None where the recipe names none."""
    if not evaluation.retention:
        return None
    parts = [Markup('<p class="note">The model as it was before fine-tuning, and as it is now, on the same old examples.</p>')]
    if found := ceiling(run):
        parts.append(Markup('<p class="warning">{}</p>').format(found))
    if stopped := run.manifest.get("stopped_by"):
        parts.append(Markup('<p class="warning">Training was stopped: {}.</p>').format(stopped))
    if mixed := run.manifest.get("wise_ft"):
        parts.append(Markup("<p>{}</p>").format(mixture(mixed)))
    for name, one in evaluation.retention.items():
        parts += [Markup("<h3>{}</h3>").format(name), _set(run, evaluation, name, one)]
    return Section("What was kept of the old", Markup("").join(parts))


def sentence(name: str, one: Retained, headline: str) -> str:
    """One set's outcome for people, in the terminal and in the report."""
    if one.skipped:
        return f"{name} was not judged: {one.skipped}."
    if one.by == "drift":
        value = "–" if one.cka is None else f"{one.cka:.3f}"
        return f"{name}: on {one.n:,} old examples the trunk's linear CKA with the base's is {value} (1 is unchanged)."
    metric = headline if headline in one.differences else next(iter(one.differences))
    difference = one.differences[metric]
    before, after = (words.number(metric, side[metric].value) for side in (one.before, one.after))
    verb = {"better": "rose", "worse": "fell"}.get(words.tone_of(metric, difference), "did not clearly change:")
    ends = words.change_interval(metric, difference)
    return (
        f"{name}: {words.in_sentence(metric)} {verb} from {before} to {after} on {one.n:,} old examples"
        f" ({words.change(metric, difference)}{', interval ' + ends if ends else ''})."
    )


def ceiling(run: Run) -> str | None:
    """That the kept model is beyond the retention ceiling, and what to do; None where it is not."""
    found = run.manifest.get("beyond_ceiling")
    if not found:
        return None
    name, drop = found["set"], found["drop"]
    lost = (
        f"{name} is {drop:.4g} worse in {found['metric']} than before training" if drop is not None else f"{name} has no score"
    )
    return (
        f"The kept model is beyond the retention ceiling: {lost}, and evaluation.retention.max_drop is {found['max_drop']:g}. "
        "Nothing that training came to is within it, so the least bad was kept. Rehearse old data (training.replay), lower "
        "training.learning_rate, or judge more often (training.eval_strategy: steps)."
    )


def mixture(record: Mapping[str, Any]) -> str:
    """What WiSE-FT took, for people."""
    tried = [one["alpha"] for one in record["tried"]]
    chosen = f", chosen out of {', '.join(f'{alpha:g}' for alpha in tried)} on the validation split" if len(tried) > 1 else ""
    fresh = "; the fresh head is the fine-tuned one" if record["fresh"] else ""
    return f"The kept model is {record['alpha']:g} of the fine-tuned and {1 - record['alpha']:g} of the base{chosen}{fresh}."


def _set(run: Run, evaluation: Evaluation, name: str, one: Retained) -> Markup:
    parts = [Markup("<p>{}</p>").format(sentence(name, one, evaluation.headline))]
    if one.differences:
        parts.append(_table(one, evaluation.headline))
    parts.append(_curve(run, evaluation, name))
    return Markup('<div class="two">{}</div>').format(
        Markup("").join(Markup("<div>{}</div>").format(part) for part in parts if part)
    )


def _table(one: Retained, headline: str) -> Markup:
    names = [name for name in dict.fromkeys((headline, *FIRST)) if name in one.differences]
    titles = '<th>Metric</th><th class="n">Before</th><th class="n">After</th><th>Change</th>'
    head = Markup(f"<table><thead><tr>{titles}</tr></thead><tbody>")
    name_cell, number_cell = '<td class="name">{}</td>', '<td class="n">{}</td>'
    row = Markup(f'<tr>{name_cell}{number_cell * 2}<td><span class="{{}}">{{}}</span><small>{{}}</small></td></tr>')
    rows = [
        row.format(
            words.metric_title(name),
            words.number(name, one.before[name].value),
            words.number(name, one.after[name].value),
            words.tone_of(name, one.differences[name]),
            words.change(name, one.differences[name]),
            words.change_interval(name, one.differences[name]),
        )
        for name in names
    ]
    return head + Markup("").join(rows) + Markup("</tbody></table>")


def _curve(run: Run, evaluation: Evaluation, name: str) -> Markup:
    """New against old, evaluation by evaluation; empty where there were fewer than two."""
    old = {line["step"]: line for line in run.history if line.get("split") == f"retention/{name}"}
    new = {line["step"]: line for line in run.history if line.get("split") == "validation"}
    metric = (run.manifest.get("best") or {}).get("metric") or evaluation.headline
    kept = "cka" if any("cka" in line for line in old.values()) else metric
    points = [
        (float(old[step][kept]), float(new[step][metric]), step)
        for step in sorted(old)
        if step in new and isinstance(old[step].get(kept), int | float) and isinstance(new[step].get(metric), int | float)
    ]
    across = "CKA with the base" if kept == "cka" else f"{words.metric_title(kept)}, old ({name})"
    best = (run.manifest.get("best") or {}).get("step")
    return plots.trade_off(across, f"{words.metric_title(metric)}, new", points, best)
