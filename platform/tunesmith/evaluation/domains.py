"""The verdict by domain: every metric for the examples of each named data set, the mean over them, and the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pyarrow as pa

from tunesmith.evaluation.results import DomainResult, Estimates
from tunesmith.evaluation.statistics import Bootstrap, mean_of
from tunesmith.tasks.metrics import greater_is_better

Judge = Callable[[pa.Table], Bootstrap]
"""Records → the metrics of a model on them."""


def judged_apart(judge: Judge, records: pa.Table, rows: Mapping[str, np.ndarray]) -> dict[str, Bootstrap]:
    """The metrics on the records of each domain (name → indices); two models on the same records share their resamples."""
    return {name: judge(records.take(pa.array(chosen))) for name, chosen in rows.items()}


def domain_results(
    found: Mapping[str, Bootstrap], trained_on: Collection[str] | None, confidence: float, keep: Callable[[str], bool]
) -> dict[str, DomainResult]:
    """Each domain's metrics that ``keep`` keeps; ``trained_on`` are the training split's domains, None where it has none."""
    return {
        name: DomainResult(
            one.n,
            {metric: estimate for metric, estimate in one.estimates(confidence).items() if keep(metric)},
            unseen=trained_on is not None and name not in trained_on,
        )
        for name, one in found.items()
    }


def over_domains(found: Mapping[str, DomainResult]) -> Estimates:
    """The mean of each metric over the domains; of what is undefined in one of them there is none."""
    if len(found) < 2:
        return {}
    first = next(iter(found.values())).metrics
    shared = [name for name in first if all(name in one.metrics and _defined(one, name) for one in found.values())]
    return {name: mean_of([one.metrics[name] for one in found.values()]) for name in shared}


def worst_of(found: Mapping[str, DomainResult], metric: str) -> str | None:
    """The domain where a metric is worst; None where there are fewer than two to choose from."""
    defined = {
        name: one.metrics[metric].value for name, one in found.items() if metric in one.metrics and _defined(one, metric)
    }
    if len(defined) < 2:
        return None
    worst = min if greater_is_better(metric) else max
    return worst(defined, key=lambda name: defined[name])


def _defined(one: DomainResult, metric: str) -> bool:
    return math.isfinite(one.metrics[metric].value)
