"""The mistakes of a gate that are known before a served model is asked: what its evaluation will have measures of.

What a suite measures is known once it has run; the metrics, the classes, slices and domains by the examples and the task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tunesmith.data.prepared import Split
from tunesmith.errors import Mistake, RecipeError
from tunesmith.evaluation.judging import is_of_class
from tunesmith.evaluation.measures import GROUPS, NOT_OF_ALL, fitting, measures, unknown
from tunesmith.evaluation.results import ClassResult, DomainResult, Estimates, Evaluation, Retained, SliceResult
from tunesmith.evaluation.slices import slice_columns, slices_of
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.targets import Target
from tunesmith.evaluation.terms import Terms
from tunesmith.recipe import suite_names
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.recipe.gate import Gate
from tunesmith.runs import Run

FEW = 32
"""Examples by which the names of the task's metrics are found."""
UNNAMED = ""
"""Old data whose names are known once it is prepared."""
LATER = ("domain_mean", "domain_gap", "parity", "latency")
"""First parts of names whose measures are found by judging, beside those of suites."""


def refuse(rules: Gate, found: Evaluation) -> None:
    """Raises :class:`RecipeError` with every rule whose measure the evaluation ``found`` (:func:`foreseen`) will not have."""
    known, mistakes = measures(found), list[Mistake]()
    suites = {*suite_names.SUITES, *suite_names.brought(suite_names.SUITE_GROUP)}
    for index, rule in enumerate(rules.rules):
        first = rule.measure.partition("/")[0]
        if "*" in first or first in suites or first in LATER or (first == "retention" and UNNAMED in found.retention):
            continue
        if first not in (*GROUPS, *NOT_OF_ALL) and not found.metrics:
            continue
        if not fitting(rule.measure, known):
            what, fix = unknown(rule.measure, found, known)
            mistakes.append(rules.mistake(index, f"{rule.measure!r}: {what}", fix))
    if mistakes:
        raise RecipeError(mistakes, of="gate")


def foreseen(
    target: Target, split: Split, settings: EvaluationSection, without: frozenset[str], old: Run | None = None
) -> Evaluation:
    """An evaluation of these examples with every name, and no number; of the old data of the run ``old`` too.

    It has no metrics where the task has no answer without a model (several labels at once, tags). Raises :class:`DataError` for
    a column of ``evaluation.slices`` that is not there.
    """
    names = Terms(target.task, target.state, without).told(_values(target, split))
    metrics = _unknown(name for name in names if not is_of_class(name))
    columns = slice_columns(split.rows(), settings.slices)
    domains = split.domains.rows() if split.domains is not None else {}
    return Evaluation(
        run=target.name,
        target=target.name,
        task=target.task.name,
        split="test",
        n=len(split),
        headline=target.task.metric,
        metrics=metrics,
        per_class=_classes(names),
        slices={
            column: {value: SliceResult(len(rows), metrics) for value, rows in slices_of(values)[0].items()}
            for column, values in columns.items()
        },
        retention={name: Retained("score", 0, after=metrics, differences=metrics) for name in _sets(old)},
        domains={name: DomainResult(len(rows), metrics, unseen=False) for name, rows in domains.items()},
    )


def _values(target: Target, split: Split) -> dict[str, float]:
    """The task's metrics of a few examples, each answered by the classes' shares; empty where there is no such answer."""
    task, state = target.task, target.state
    examples = list(split.examples(np.arange(min(FEW, len(split)))))
    answer = task.majority(examples, state)
    if answer is None:
        return {}
    return dict(task.aggregate(pa.Table.from_pylist([task.score(answer, one, state) for one in examples]), state))


def _sets(run: Run | None) -> list[str]:
    """The names of a run's old data; :data:`UNNAMED` where its record does not say them."""
    if run is None:
        return []
    return list((run.manifest.get("old_data") or {}).get("retention", {})) or [UNNAMED]


def _classes(names: Iterable[str]) -> dict[str, ClassResult]:
    found: dict[str, list[str]] = {}
    for name in names:
        metric, _, label = name.partition("/")
        if label and metric in ("precision", "recall", "f1"):
            found.setdefault(label, []).append(metric)
    return {label: ClassResult(0, _unknown(metrics), None) for label, metrics in found.items()}


def _unknown(names: Iterable[str]) -> Estimates:
    return {name: Estimate(math.nan, math.nan, math.nan, 0, "none") for name in names}
