"""Everything that an evaluation has measured, under one name each: what the rules of a gate ask for.

==========================  ==========================================================================================
name                        what
==========================  ==========================================================================================
n                           the number of examples
METRIC                      of all examples: ``accuracy``, ``f1_macro``, ``ece``
METRIC/LABEL                of one class: ``recall/cat``, ``precision/cat``, ``f1/cat``
slices/COLUMN=VALUE/METRIC  of the examples with that value
domains/NAME/METRIC         of the examples of that data set
domain_mean/METRIC          the mean over the domains
domain_gap/METRIC           how much worse out of domain than in domain; ``domain_gap/NAME/METRIC``: on that data set
retention/NAME/METRIC       of the old examples, now
retention/NAME/drop         how much worse the headline (else the first metric) is there than before training
retention/NAME/cka          how alike the representations of old examples are still
SUITE/NAME                  what that suite of the test bench measured; ``parity``; ``latency`` of a served model
pairs/NAME                  what a rollout's two versions answered to the same requests (:mod:`tunesmith.evaluation.traffic`)
==========================  ==========================================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from tunesmith.errors import nearest
from tunesmith.evaluation.decisions import turned
from tunesmith.evaluation.results import Estimates, Evaluation, Retained
from tunesmith.evaluation.statistics import Estimate
from tunesmith.recipe import suite_names
from tunesmith.tasks.metrics import greater_is_better

SUITES = tuple(suite_names.SUITES)
"""Suites of the test bench that a rule may ask for before any has been run."""

_SERVED = "gate the served model: `tunesmith gate http://HOST:PORT/v2/models/NAME --like RUN`"
NOT_OF_ALL = {
    "parity": ("it has compared no samples", "judge it again, in this process: `tunesmith evaluate RUN`"),
    "latency": ("latency is measured of a served model", _SERVED),
    "pairs": ("pairs are those of a rollout", "`tunesmith serve promote NAME --gate FILE` has them"),
}
"""First parts of a name that not every evaluation has: why there is no such measure, and what to do."""

GAP = "domain_gap"

GROUPS = ("slices", "domains", "domain_mean", GAP, "retention")
"""First parts of a name that are not a suite."""

LESS = re.compile(
    r"(^|_)(drop|gap|loss|error|errors|failures?|failure_rate|difference|attack|overlap|accuracy_gain|fpr95|overconfidence"
    r"|found|p50|p90|p95|p99|seconds|ms|mce)(_|$)"
)
"""Words in the name of a suite's measure of which less is better."""


def measures(found: Evaluation) -> Estimates:
    """Every measure of an evaluation by its name."""
    every: Estimates = {"n": Estimate(found.n, found.n, found.n, found.n, "count"), **found.metrics}
    for label, one in found.per_class.items():
        every |= {f"{metric}/{label}": estimate for metric, estimate in one.metrics.items()}
    for column, values in found.slices.items():
        for value, part in values.items():
            every |= {f"slices/{column}={value}/{metric}": estimate for metric, estimate in part.metrics.items()}
    for name, domain in found.domains.items():
        every |= {f"domains/{name}/{metric}": estimate for metric, estimate in domain.metrics.items()}
        every |= {f"{GAP}/{name}/{metric}": estimate for metric, estimate in domain.gap.items()}
    every |= {f"domain_mean/{metric}": estimate for metric, estimate in found.domain_mean.items()}
    every |= {f"{GAP}/{metric}": estimate for metric, estimate in found.domain_gap.items()}
    for name, kept in found.retention.items():
        every |= {f"retention/{name}/{key}": estimate for key, estimate in _retained(kept, found.headline).items()}
    for suite, result in found.suites.items():
        every |= {f"{suite}/{name}": estimate for name, estimate in result.measures.items()}
    return every


def fitting(pattern: str, known: Mapping[str, Estimate]) -> list[str]:
    """The names that a pattern means: itself, or, where it has ``*``, all that fit.

    >>> fitting("recall/*", dict.fromkeys(["recall/a", "recall/b", "accuracy"]))
    ['recall/a', 'recall/b']
    """
    if pattern in known or "*" not in pattern:
        return [pattern] if pattern in known else []
    regex = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)
    return [name for name in known if regex.fullmatch(name)]


def unknown(pattern: str, found: Evaluation, known: Mapping[str, Estimate]) -> tuple[str, str]:
    """Why there is no such measure, and what to do."""
    first, _, rest = pattern.partition("/")
    if first in found.suites and found.suites[first].skipped:
        return (
            f"the suite {first} was skipped: {found.suites[first].skipped}",
            "remove the rule, or mend what kept it from running",
        )
    if first == "pairs" and rest in ("accuracy", "labelled") and first in found.suites:
        return "nobody says which of the two versions is right", "`serve promote NAME --gate FILE --labels FILE` does"
    if first in NOT_OF_ALL and first not in found.suites:
        return NOT_OF_ALL[first]
    if first in SUITES and first not in found.suites:
        return (
            f"the suite {first} was not run",
            "`tunesmith gate RUN --evaluate` runs it first; or add it to `evaluation:` in the recipe",
        )
    if first == "slices":
        return _unknown_slice(rest, found)
    if first in ("domains", "domain_mean", GAP) and not found.domains:
        return "the evaluation has no domains", "give the data sets names: data.test: {clinic: clinic.csv, …}"
    if first == GAP and not found.domain_gap:
        return "nobody knows which domains are in and which out of domain", "evaluation.in_domain=[NAME, …] names those within"
    if first == "retention":
        judged = [name for name, one in found.retention.items() if not one.skipped]
        if not judged:
            why = f": {skipped}" if (skipped := next((one.skipped for one in found.retention.values()), "")) else ""
            run = ", of the run --like" if found.target else ""
            return f"nothing old was judged{why}", f"name old data under evaluation.retention.data in the recipe{run}"
    near = nearest(pattern, known) or nearest(pattern.replace("*", next(iter(found.per_class), "")), known)
    names = [name for name in known if "/" not in name]
    return "there is no such measure", f"did you mean {near}?" if near else f"there are {', '.join(names)}, and their parts"


def is_better_when_more(name: str) -> bool:
    """Which way is better, by a measure's name.

    >>> is_better_when_more("slices/age=old/f1"), is_better_when_more("recall/cat"), is_better_when_more("retention/old/drop")
    (True, True, False)
    >>> is_better_when_more("domain_gap/accuracy")
    False
    """
    parts = name.split("/")
    if parts[0] == GAP:
        return False
    if parts[0] in GROUPS or len(parts) == 1 or parts[0] not in ("precision", "recall", "f1"):
        last = parts[-1]
        return greater_is_better(last) and not LESS.search(last)
    return greater_is_better(parts[0])


def metric_of(name: str) -> str:
    """The metric in a measure's name, by which it is written for people.

    >>> metric_of("slices/age=old/f1"), metric_of("recall/cat"), metric_of("ece")
    ('f1', 'recall', 'ece')
    """
    parts = name.split("/")
    return parts[0] if parts[0] in ("precision", "recall", "f1") else parts[-1]


def _retained(kept: Retained, headline: str) -> Estimates:
    every = dict(kept.after)
    if kept.differences:
        metric = headline if headline in kept.differences else next(iter(kept.differences))
        every["drop"] = turned(kept.differences[metric], not greater_is_better(metric))
    if kept.cka is not None:
        every["cka"] = Estimate(kept.cka, math.nan, math.nan, kept.n, "none")
    return every


def _unknown_slice(rest: str, found: Evaluation) -> tuple[str, str]:
    column, _, tail = rest.partition("=")
    if column not in found.slices:
        near = nearest(column, found.slices)
        if near:
            return f"the evaluation has no slices by {column!r}", f"did you mean {near}?"
        have = f"it has {', '.join(found.slices)}; " if found.slices else ""
        return f"the evaluation has no slices by {column!r}", f"{have}add the column to evaluation.slices in the recipe"
    value, _, metric = tail.rpartition("/")
    if value not in found.slices[column] and "*" not in value:
        near = nearest(value, found.slices[column])
        return (
            f"{column} has no value {value!r}",
            f"did you mean {near}?" if near else f"it has {', '.join(found.slices[column])}",
        )
    names = next(iter(found.slices[column].values())).metrics
    near = nearest(metric, names)
    return f"there is no metric {metric!r}", f"did you mean {near}?" if near else f"there are {', '.join(names)}"
