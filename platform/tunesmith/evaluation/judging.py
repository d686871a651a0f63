"""The verdict on whoever answers: records of a split, then every metric with its interval, by class, slice and domain.

A run and a served model go through the same code; what differs is who answers (:mod:`tunesmith.evaluation.judges`), and what
they are set beside (:mod:`tunesmith.evaluation.baselines`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tunesmith import storage
from tunesmith.data.prepared import Split
from tunesmith.evaluation.domains import domain_results, in_domain, judged_apart, over_domains, with_gaps, worst_of
from tunesmith.evaluation.examples import best_and_worst, samples
from tunesmith.evaluation.predictions import Progress, read_predictions, write_predictions
from tunesmith.evaluation.results import Baseline, ClassResult, Estimates, Evaluation, SliceResult, compact
from tunesmith.evaluation.slices import slice_columns, slices_of
from tunesmith.evaluation.statistics import Aggregate, Bootstrap, bootstrap
from tunesmith.evaluation.terms import Terms
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.tasks.base import State, Task

if TYPE_CHECKING:
    from tunesmith.evaluation.judges import Judges

PREDICTIONS, VERDICT, EVALUATIONS = "predictions.parquet", "metrics.json", "evaluations"
FEW = 100
"""Examples below which the reader is warned that little can be told apart."""

CLASS_METRICS = ("precision", "recall", "f1", "support", "predicted")


@dataclass(frozen=True)
class Scorer:
    """How records become metrics, over the same resamples each time."""

    task: Task
    state: State
    settings: EvaluationSection
    without: frozenset[str] = frozenset()
    """Metrics, by their name without an average, and kinds of charts, that these answers cannot tell."""

    @property
    def terms(self) -> Terms:
        """The same without the settings: by what the records are read again."""
        return Terms(self.task, self.state, self.without)

    def __call__(self, records: pa.Table) -> Bootstrap:
        """The metrics of these records, and of resamples of them."""
        terms = self.terms

        def over(part: pa.Table) -> Aggregate:
            return lambda weights: terms.told(self.task.aggregate(part, self.state, weights))

        return bootstrap(
            over(records),
            len(records),
            self.settings.bootstrap_samples,
            self.settings.seed,
            part=lambda rows: over(records.take(pa.array(rows))),
        )


@dataclass(frozen=True)
class Case:
    """What is judged, and where its files go."""

    name: str
    """Of the run, or the URL."""
    judges: Judges
    split: Split
    split_name: str
    scorer: Scorer
    folder: str
    metric: str | None = None
    """The metric of the verdict, where the recipe names one."""
    trained_on: list[str] | None = None
    """The domains that it was trained with, where data sets have names."""


@dataclass(frozen=True)
class Judged:
    """The metrics of a case, for whatever is set beside it."""

    case: Case
    model: Bootstrap
    by_domain: Mapping[str, Bootstrap]
    records: pa.Table

    @property
    def domains(self) -> Mapping[str, np.ndarray]:
        """The rows of each domain; empty where data sets have no names."""
        split = self.case.split
        return split.domains.rows() if split.domains is not None else {}


Beside = Callable[[Judged], dict[str, Baseline]]
"""The other models that are judged on the same examples."""


def judge(case: Case, beside: Beside, progress: Progress | None = None) -> tuple[Evaluation, Judged]:
    """Write ``predictions.parquet`` into the case's folder, and judge it."""
    task, state, settings, split = case.scorer.task, case.scorer.state, case.scorer.settings, case.split
    columns = slice_columns(split.rows(), settings.slices)
    place = storage.join(case.folder, PREDICTIONS)
    write_predictions(place, case.judges.records("model", split, progress), split, columns)
    records = read_predictions(place)
    model = case.scorer(records)
    headline = _headline(task, case.metric, model)
    apart = split.domains.rows() if split.domains is not None else {}
    judged = Judged(case, model, judged_apart(case.scorer, records, apart), records)
    domains = domain_results(judged.by_domain, case.trained_on, settings.confidence, lambda metric: not is_of_class(metric))
    inside = in_domain(domains, case.trained_on, settings.in_domain)
    domains, gap = with_gaps(domains, inside)
    best, worst = best_and_worst(records, split, task, state, settings.max_examples)
    found = Evaluation(
        run=case.name,
        task=task.name,
        split=case.split_name,
        n=len(split),
        headline=headline,
        metrics={key: one for key, one in model.estimates(settings.confidence).items() if not is_of_class(key)},
        per_class=_per_class(model, settings.confidence),
        baselines=beside(judged),
        slices={column: _slices(case.scorer, records, values) for column, values in columns.items()},
        domains=domains,
        domain_mean=over_domains(domains),
        worst_domain=worst_of(domains, headline),
        domain_gap=gap,
        charts=[compact(chart) for chart in task.charts(records, state) if chart.kind not in case.scorer.without],
        best=best,
        worst=worst,
        samples=samples(records, split, task, settings.max_samples),
        confidence=settings.confidence,
        data_hash=split.hash,
        warnings=[*_warnings(model, split, columns), *_absent(settings.in_domain, domains)],
        folder=case.folder,
    )
    return found, judged


def _absent(chosen: Sequence[str], domains: Collection[str]) -> list[str]:
    """That domains which are to count as in domain are not judged here."""
    absent = [name for name in chosen if name not in domains]
    if not absent or not domains:
        return []
    return [f"evaluation.in_domain names {', '.join(absent)}, and the domains judged here are {', '.join(domains)}."]


def _headline(task: Task, chosen: str | None, model: Bootstrap) -> str:
    """The metric of the verdict: the recipe's where it judges all classes, else the task's."""
    wanted = [name for name in (chosen, task.metric) if name in model.values]
    whole = (name for name in wanted if name != "loss" and not is_of_class(name))
    return next(whole, next(iter(model.values)))


def is_of_class(name: str) -> bool:
    """Whether the metric is of one class: ``f1/cat``."""
    return "/" in name and name.partition("/")[0] in CLASS_METRICS


def _per_class(model: Bootstrap, confidence: float) -> dict[str, ClassResult]:
    """The metrics called ``f1/LABEL`` by label."""
    labels = [name.partition("/")[2] for name in model.values if name.startswith("support/")]
    found = {}
    for label in labels:
        named = {base: f"{base}/{label}" for base in ("precision", "recall", "f1")}
        predicted = model.values.get(f"predicted/{label}")
        found[label] = ClassResult(
            support=int(model.values[f"support/{label}"]),
            metrics={base: model.estimate(name, confidence) for base, name in named.items() if name in model.values},
            predicted=None if predicted is None else int(predicted),
        )
    return found


def _slices(scorer: Scorer, records: pa.Table, values: pa.Array) -> dict[str, SliceResult]:
    found = {}
    for value, rows in slices_of(values)[0].items():
        part = scorer(records.take(pa.array(rows)))
        estimates = part.estimates(scorer.settings.confidence)
        metrics: Estimates = {key: one for key, one in estimates.items() if not is_of_class(key)}
        found[value] = SliceResult(len(rows), metrics)
    return found


def _warnings(model: Bootstrap, split: Split, columns: Mapping[str, pa.Array]) -> list[str]:
    """What a reader must know before trusting the numbers, whoever was judged."""
    said = []
    if len(split) < FEW:
        said.append(f"There are only {len(split)} examples: the intervals are wide, and small differences mean nothing.")
    absent = [key.partition("/")[2] for key, value in model.values.items() if key.startswith("support/") and value == 0]
    if absent:
        shown = ", ".join(absent[:8]) + (" …" if len(absent) > 8 else "")
        said.append(f"{len(absent)} of the classes have no example here, and are not judged: {shown}.")
    if math.isnan(model.values.get("loss", 0.0)):
        said.append("The loss is not a number: the model's outputs are damaged.")
    for column, values in columns.items():
        left_out = slices_of(values)[1]
        if left_out:
            said.append(f"Of the column {column} only the commonest values are shown; {left_out} more are left out.")
    return said
