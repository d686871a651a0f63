"""``report.html``: the verdict on top, then everything behind it, in one file that needs no network."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup

from tunesmith import storage
from tunesmith.evaluation.baselines import BASE_MODEL, IN_PROCESS, MAJORITY
from tunesmith.evaluation.results import Evaluation
from tunesmith.report import (
    adaptation,
    augmentation,
    care,
    domains,
    groups,
    imbalance,
    overfitting,
    plots,
    retention,
    samples,
    search,
    self_training,
    served,
    suites,
    words,
)
from tunesmith.report.no_run import NoRun
from tunesmith.report.page import Section, environment, resource, stored
from tunesmith.report.plots import Row, Series
from tunesmith.tasks.metrics import greater_is_better

if TYPE_CHECKING:
    from tunesmith.runs import Run

log = logging.getLogger(__name__)

REPORT = "report.html"
SECTIONS = "tunesmith.report_sections"
"""Entry points ``(run, evaluation) -> Section | None`` by which wings add to the report."""

PARTS = (
    served.section,
    search.section,
    care.section,
    domains.section,
    imbalance.section,
    groups.section,
    augmentation.section,
    self_training.section,
    adaptation.section,
    overfitting.section,
    retention.section,
)
"""What the platform itself adds, in the order of the page; each is there where it has something to say."""

MOST_CLASSES = 200
"""Rows of the table of classes; the rest is in ``metrics.json``."""


def write_report(run: Run | None, evaluation: Evaluation) -> str:
    """Write ``report.html`` beside the evaluation's other files, and return its path or URI.

    ``run`` is the one that was judged, or that a served model should answer like; None of a server that nobody here has made.
    """
    run = run if run is not None else cast("Run", NoRun(evaluation))
    place = storage.join(evaluation.folder or run.path, REPORT)
    storage.write_text(place, render(run, evaluation))
    return place


def render(run: Run, evaluation: Evaluation) -> str:
    """The page as text."""
    recipe = run.recipe_values
    prepared = stored(run, "data/report.json")
    page = environment().get_template("report.html.j2")
    sections = _sections(run, evaluation)
    return page.render(
        run=run,
        manifest=run.manifest,
        found=evaluation,
        verdict=words.verdict(evaluation),
        hero=_hero(evaluation),
        facts=_facts(run, evaluation),
        metrics=_metrics(evaluation),
        compared=_compared(evaluation),
        curves=_curves(run, evaluation),
        charts=_charts(evaluation),
        classes=_classes(evaluation),
        slices=_slices(evaluation),
        data=prepared or {"splits": run.manifest.get("data", {})},
        label_counts=_label_counts(prepared),
        recipe=recipe,
        settings=_flat(recipe),
        sections=sections,
        durations={name: words.duration(seconds) for name, seconds in run.manifest.get("durations", {}).items()},
        style=Markup(resource("report.css") + "".join(one.style for one in sections)),
    )


def _hero(found: Evaluation) -> Markup:
    """The headline metric before and after."""
    name = found.headline
    rows = [Row("Served" if found.target else "Fine-tuned", found.metrics[name])]
    others = ((IN_PROCESS, "In process", "base"), (BASE_MODEL, "Pre-trained", "base"), (MAJORITY, "Guessing", "majority"))
    for key, label, kind in others:
        one = found.baselines.get(key)
        if one and not one.skipped and name in one.metrics:
            rows.append(Row(label, one.metrics[name], kind))
    return plots.intervals(name, rows)


def _facts(run: Run, found: Evaluation) -> list[tuple[str, str, str]]:
    """What was done, in a few numbers: title, value, small print."""
    manifest, data = run.manifest, run.manifest.get("data", {})
    durations = manifest.get("durations", {})
    training = run.recipe_values.get("training", {})
    rows = {name: one.get("rows", 0) for name, one in data.items()}
    base = str(
        manifest.get("base_model", {}).get("name_or_path") or run.recipe_values.get("model", {}).get("model_name_or_path", "")
    )
    gpus = manifest.get("hardware", {}).get("gpus") or []
    workers = manifest.get("workers", 1)
    facts = [
        ("Task", found.task.replace("-", " "), f"{len(found.per_class)} classes" if found.per_class else ""),
    ]
    if base:
        facts.append(("Base model", base.rstrip("/").rpartition("/")[2] or base, base if "/" in base else ""))
    if rows.get("train"):
        rest = ", ".join(f"{count:,} {name}" for name, count in rows.items() if name != "train" and count)
        facts.append(("Training examples", f"{rows['train']:,}", rest))
    if manifest.get("steps"):
        best = manifest.get("best") or {}
        facts.append(("Updates", f"{manifest['steps']:,}", f"best at {best['step']:,}" if best.get("step") else ""))
    if durations.get("train") is not None:
        facts.append(
            (
                "Training time",
                words.duration(durations["train"]),
                f"{workers} worker{'s' if workers != 1 else ''} on {gpus[0] if gpus else 'CPU'}",
            )
        )
    if training.get("learning_rate"):
        facts.append(("Learning rate", f"{training['learning_rate']:g}", str(training.get("lr_scheduler_type", ""))))
    return facts


def _metrics(found: Evaluation) -> list[dict[str, Any]]:
    """Every metric, the headline first; the loss only where it is not the log loss again."""
    twice = "log_loss" in found.metrics and "loss" in found.metrics
    same = twice and math.isclose(found.metrics["loss"].value, found.metrics["log_loss"].value, rel_tol=1e-6)
    names = [found.headline, *(name for name in found.metrics if name != found.headline and not (same and name == "loss"))]
    return [
        {
            "name": name,
            "title": words.metric_title(name),
            "estimate": found.metrics[name],
            "bar": plots.bar(found.metrics[name]) if 0 <= found.metrics[name].value <= 1 else "",
            "minor": name.endswith("_weighted") and name != found.headline,
            "lower": not greater_is_better(name),
            "beside": [_beside(name, found, key) for key in _compared(found)],
        }
        for name in names
    ]


def _compared(found: Evaluation) -> dict[str, str]:
    """The baselines that were judged, with the heading of their column."""
    titles = {IN_PROCESS: "In process", BASE_MODEL: "Pre-trained", MAJORITY: "Guessing"}
    return {key: titles.get(key, key) for key, one in found.baselines.items() if not one.skipped}


def _beside(name: str, found: Evaluation, key: str) -> dict[str, Any]:
    baseline = found.baselines[key]
    if name not in baseline.metrics:
        return {"value": "–", "change": "", "interval": "", "tone": "unclear"}
    difference = baseline.differences[name]
    return {
        "value": words.number(name, baseline.metrics[name].value),
        "change": words.change(name, difference),
        "interval": words.change_interval(name, difference),
        "tone": words.tone_of(name, difference),
    }


def _curves(run: Run, found: Evaluation) -> list[Markup]:
    """The loss of both splits, and the validation metric."""
    lines: dict[str, list[Mapping[str, Any]]] = {"train": [], "validation": []}
    for line in run.history:
        if line.get("split") in lines and isinstance(line.get("step"), int):
            lines[line["split"]].append(line)
    best = run.manifest.get("best") or {}
    step = best.get("step")
    loss = [
        Series("training", _points(lines["train"], "loss"), "base", smooth=True),
        Series("validation", _points(lines["validation"], "loss")),
    ]
    names = dict.fromkeys(name for name in (best.get("metric"), found.headline) if name and name != "loss")
    unit = "rounds" if run.manifest.get("federation") else "updates"  # a federation's history has a line for each round
    drawn = [plots.curves("Loss", loss, step, unit)]
    for name in names:
        series = [Series("validation", _points(lines["validation"], name))]
        drawn.append(plots.curves(f"{words.metric_title(name)} on the validation split", series, step, unit))
    return [one for one in drawn if one]


def _points(lines: list[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[name])) for line in lines if isinstance(line.get(name), int | float)]


def _charts(found: Evaluation) -> list[dict[str, Any]]:
    drawn = []
    for chart in found.charts:
        draw = plots.RENDERERS.get(chart.kind)
        if draw is None:
            log.warning("the report has no drawing for a chart of the kind %r", chart.kind)
            continue
        pairs = plots.confused_pairs(chart.data) if chart.kind == "confusion" else []
        drawn.append({"kind": chart.kind, "title": chart.title, "svg": draw(chart.data), "pairs": pairs})
    return drawn


def _classes(found: Evaluation) -> list[dict[str, Any]]:
    """The classes, the one with the lowest F1 first."""

    def weakness(name: str) -> float:
        f1 = found.per_class[name].metrics.get("f1")
        return f1.value if f1 and math.isfinite(f1.value) else math.inf

    names = sorted(found.per_class, key=weakness)[:MOST_CLASSES]
    return [
        {
            "name": name,
            "result": found.per_class[name],
            "bars": {key: plots.bar(one) for key, one in found.per_class[name].metrics.items()},
        }
        for name in names
    ]


def _slices(found: Evaluation) -> list[dict[str, Any]]:
    name = found.headline
    shown = []
    for column, values in found.slices.items():
        rows = [
            {
                "value": value,
                "n": one.n,
                "estimate": one.metrics[name],
                "bar": plots.bar(one.metrics[name]),
                "tone": _against_all(name, one.metrics[name].low, one.metrics[name].high, found.metrics[name].value),
            }
            for value, one in values.items()
        ]
        shown.append({"column": column, "rows": rows})
    return shown


def _against_all(name: str, low: float, high: float, overall: float) -> str:
    """Whether a slice's whole interval is on one side of the value of all examples."""
    if not (math.isfinite(low) and math.isfinite(high)) or low <= overall <= high:
        return "unclear"
    return "better" if (low > overall) == greater_is_better(name) else "worse"


def _label_counts(stored: Mapping[str, Any]) -> Markup:
    counts = stored.get("splits", {}).get("train", {}).get("labels")
    return plots.shares(counts) if counts else Markup("")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The recipe as dotted keys and values."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append(
                (f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
            )
    return rows


def _sections(run: Run, found: Evaluation) -> list[Section]:
    """The parts, a section a suite, what the wings add, then the samples. A wing that fails costs its own section only."""
    sections = [section for part in PARTS if (section := part(run, found)) is not None]
    sections += suites.sections(found)
    for entry in sorted(entry_points(group=SECTIONS), key=lambda one: one.name):
        try:
            make: Callable[[Run, Evaluation], Section | None] = entry.load()
            section = make(run, found)
        except Exception:
            log.exception("the report section %s could not be made", entry.name)
            continue
        if section is not None:
            sections.append(section)
    return [*sections, *filter(None, [samples.section(found)])]
