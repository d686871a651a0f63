"""The verdict by domain: every metric for the examples of each named data set, the mean over them, the worst, and the gap.

The *generalisation gap* is how much worse a metric is out of domain than in domain: the difference of the two means, in each of
which domains weigh the same. Nothing pairs their examples, so the interval is MOVER's of independent estimates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pyarrow as pa

from tunesmith.evaluation.decisions import turned
from tunesmith.evaluation.results import DomainResult, Estimates
from tunesmith.evaluation.statistics import Bootstrap, apart, mean_of
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


def in_domain(found: Mapping[str, DomainResult], trained_on: Collection[str] | None, chosen: Collection[str]) -> list[str]:
    """The domains that count as in domain: the chosen ones, else those that training had rows of; none where nobody knows."""
    known = chosen or trained_on or ()
    return [name for name in found if name in known]


def with_gaps(found: Mapping[str, DomainResult], inside: Collection[str]) -> tuple[dict[str, DomainResult], Estimates]:
    """The domains, those out of domain with their gaps to the mean of those in domain, and the gap between the two means."""
    outside = [name for name in found if name not in inside]
    if not inside or not outside:
        return dict(found), {}
    near = {name: found[name] for name in inside}
    home = over_domains(near) if len(near) > 1 else next(iter(near.values())).metrics
    with_gap = {
        name: dataclasses.replace(one, gap=_gap(home, one.metrics)) if name in outside else one for name, one in found.items()
    }
    away = {name: found[name] for name in outside}
    return with_gap, _gap(home, over_domains(away) if len(away) > 1 else next(iter(away.values())).metrics)


def _gap(home: Estimates, away: Estimates) -> Estimates:
    """How much worse each metric is away, where it is defined on both sides."""
    both = [name for name in home if name in away and math.isfinite(home[name].value) and math.isfinite(away[name].value)]
    return {name: turned(apart(home[name], away[name]), greater_is_better(name)) for name in both}


def _defined(one: DomainResult, metric: str) -> bool:
    return math.isfinite(one.metrics[metric].value)
