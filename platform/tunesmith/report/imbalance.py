"""The report's section on uneven classes: how uneven they are, what was done about it, and how the rare ones fare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith.recipe.data import weights_of
from tunesmith.report import plots
from tunesmith.tasks.weights import advice, class_weights, remedies

if TYPE_CHECKING:
    from tunesmith.evaluation.results import ClassResult, Evaluation
    from tunesmith.recipe.training import TrainingSection
    from tunesmith.report.page import Section
    from tunesmith.runs import Run

MOST_CLASSES = 30
"""Rows of the table, the rarest classes first."""


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The classes of the training split; None where the task has none."""
    from tunesmith.report import page

    report = page.stored(run, "data/report.json")
    found = report.get("imbalance")
    if not found:
        return None
    training, by_domain = run.recipe.training, weights_of(run.recipe.data.train) is not None
    rows = report.get("splits", {}).get("train", {}).get("rows", 0)
    counts: dict[str, int] = found["counts"]
    state = {"labels": list(counts), "label_counts": list(counts.values())}
    template = page.environment().get_template("imbalance.html.j2")
    shown = template.render(
        found=found,
        advice=advice(state, training),
        done=_done(training, by_domain),
        classes=_classes(state, rows, training, evaluation.per_class),
        weighed=training.class_weights != "none",
        drawn=_drawn_evenly(training, counts, rows) and not by_domain,
        total=len(counts),
        split=evaluation.split,
    )
    return page.Section("Classes of unequal size", Markup(shown))


def _classes(
    state: Mapping[str, Any], rows: int, training: TrainingSection, judged: Mapping[str, ClassResult]
) -> list[dict[str, Any]]:
    """The rarest classes with their counts, weights, and what became of them."""
    counts = dict(zip(state["labels"], state["label_counts"], strict=True))
    found = class_weights(training, state)
    weights = dict(zip(counts, found.tolist(), strict=True)) if found is not None else {}
    total, held = sum(counts.values()) or 1, sum(count > 0 for count in counts.values())
    rare = sorted(counts, key=lambda name: (counts[name], name))[:MOST_CLASSES]
    even = _drawn_evenly(training, counts, rows)
    return [
        {
            "name": name,
            "count": counts[name],
            "share": counts[name] / total,
            "weight": weights.get(name, 1.0),
            "times": total / held / counts[name] if even and counts[name] else None,
            "recall": judged[name].metrics.get("recall") if name in judged else None,
            "bar": plots.bar(judged[name].metrics["recall"]) if name in judged and "recall" in judged[name].metrics else "",
        }
        for name in rare
    ]


def _drawn_evenly(training: TrainingSection, counts: Mapping[str, int], rows: int) -> bool:
    """Whether examples are drawn by class, and each has exactly one, so that it can be said how often it comes."""
    return training.sampling == "balanced" and sum(counts.values()) == rows


def _done(training: TrainingSection, by_domain: bool) -> list[str]:
    """What the recipe does about it, in sentences."""
    said = {
        "inverse": "In the loss, a class weighs as one over its number of examples.",
        "effective": "In the loss, a class weighs as one over its effective number of examples (Cui et al. 2019).",
    }
    done = []
    if training.class_weights != "none":
        kind = training.class_weights if isinstance(training.class_weights, str) else ""
        done.append(said.get(kind, "In the loss, the classes weigh as the recipe says."))
    if training.sampling == "balanced":
        within = "within the share of each domain " if by_domain else ""
        done.append(f"Every epoch drew each class {within}equally often, as many examples in all as there are.")
    if training.loss == "focal":
        gamma = training.loss_args.get("gamma", 2.0)
        done.append(f"Examples that the model already had right counted less (focal loss, gamma {gamma:g}).")
    assert bool(done) == bool(remedies(training))
    return done
