"""The mistakes of a gate that are known before a served model is asked: what its evaluation will have measures of.

What a suite measures is known once it has run; the metrics, the classes, slices and domains by the examples and the task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from tunesmith.data.prepared import Split
from tunesmith.errors import Mistake, RecipeError
from tunesmith.evaluation.judging import is_of_class
from tunesmith.evaluation.measures import GROUPS, NOT_OF_ALL, fitting, measures, unknown
from tunesmith.evaluation.results import (
    ClassResult,
    DomainResult,
    Estimates,
    Evaluation,
    Retained,
    SliceResult,
    SuiteResult,
)
from tunesmith.evaluation.retention import CLASS_MARK, OldSet
from tunesmith.evaluation.slices import slice_columns, slices_of
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.targets import Target
from tunesmith.evaluation.terms import Terms
from tunesmith.recipe import suite_names
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.recipe.gate import Gate

FEW = 32
"""Examples by which the names of the task's metrics are found."""
METRIC = "METRIC"
"""Stands for the metrics of slices, domains and old data where their names are not known."""
LATER = ("domain_mean", "domain_gap", "parity", "latency")
"""First parts of names whose measures are found by judging, beside those of suites."""


def refuse(rules: Gate, found: Evaluation) -> None:
    """Raises :class:`RecipeError` with every rule whose measure the evaluation ``found`` (:func:`foreseen`) will not have."""
    known, mistakes = measures(found), list[Mistake]()
    suites = {*suite_names.SUITES, *suite_names.brought(suite_names.SUITE_GROUP), *found.suites}
    for index, rule in enumerate(rules.rules):
        first, name = rule.measure.partition("/")[0], rule.measure
        if "*" in first or first in suites or first in LATER:
            continue
        if not found.metrics:
            if first not in (*GROUPS, *NOT_OF_ALL):
                continue
            name = f"{name.rpartition('/')[0]}/*"
        if not fitting(name, known):
            what, fix = unknown(name, found, known)
            mistakes.append(rules.mistake(index, f"{rule.measure!r}: {what}", fix))
    if mistakes:
        raise RecipeError(mistakes, of="gate")


def foreseen(
    target: Target, split: Split, settings: EvaluationSection, without: frozenset[str], old: Mapping[str, OldSet]
) -> Evaluation:
    """An evaluation of these examples with every name, and no number; of ``old`` data and the suites that are asked for too.

    It has no metrics where the task has no answer without a model (several labels at once, tags). Raises :class:`DataError` for
    a column of ``evaluation.slices`` that is not there.
    """
    names = Terms(target.task, target.state, without).told(_values(target, split))
    metrics = _unknown(name for name in names if not is_of_class(name))
    parts = metrics or _unknown([METRIC])
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
            column: {value: SliceResult(len(rows), parts) for value, rows in slices_of(values)[0].items()}
            for column, values in columns.items()
        },
        retention={name: one.left_out() if one.skipped else _retained(one, metrics) for name, one in old.items()},
        domains={name: DomainResult(len(rows), parts, unseen=False) for name, rows in domains.items()},
        suites={name.rpartition(".")[2]: SuiteResult(name) for name in suite_names.asked(settings)},
    )


def _values(target: Target, split: Split) -> dict[str, float]:
    """The task's metrics of a few examples, each answered by the classes' shares; empty where there is no such answer."""
    task, state = target.task, target.state
    examples = list(split.examples(np.arange(min(FEW, len(split)))))
    answer = task.majority(examples, state)
    if answer is None:
        return {}
    return dict(task.aggregate(pa.Table.from_pylist([task.score(answer, one, state) for one in examples]), state))


def _retained(old: OldSet, metrics: Estimates) -> Retained:
    """What will be measured on a set of old data: what the base was judged by there, as far as it can be told."""
    names = [name for name in metrics if name in old.before and CLASS_MARK not in name] if metrics else [METRIC]
    return Retained(old.by, 0, after=_unknown(names), differences=_unknown(names))


def _classes(names: Iterable[str]) -> dict[str, ClassResult]:
    found: dict[str, list[str]] = {}
    for name in names:
        metric, _, label = name.partition("/")
        if label and metric in ("precision", "recall", "f1"):
            found.setdefault(label, []).append(metric)
    return {label: ClassResult(0, _unknown(metrics), None) for label, metrics in found.items()}


def _unknown(names: Iterable[str]) -> Estimates:
    return {name: Estimate(math.nan, math.nan, math.nan, 0, "none") for name in names}
