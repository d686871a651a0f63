"""How two models treat groups, side by side: what the suite ``fairness`` found of each, and what training did for the groups.

So the effect of ``data.groups`` shows: A with it, B without. The predictions do not say of which group an example is; nothing
is paired: the differences are those of independent estimates, wider than pairs make them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.sides import Side
from tunesmith.evaluation.statistics import Estimate, apart

SUITE = "fairness"
MEASURES = (
    "worst_group_accuracy",
    "accuracy_difference",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "demographic_parity_difference",
    "demographic_parity_ratio",
)
"""What is held against one another, in the order of the page."""


@dataclass(frozen=True)
class Pair:
    """One number of both models."""

    a: Estimate
    b: Estimate
    difference: Estimate
    """A - B, the two taken as independent."""


@dataclass(frozen=True)
class FairnessCompared:
    """What the suite found of A and of B."""

    measures: dict[str, dict[str, Pair]]
    """Column, or columns together (``sex+age``) → measure → both. The column ``""`` is the worst of all columns."""
    groups: dict[str, dict[str, Pair]] = field(default_factory=dict)
    """Title of a table of groups → group → its accuracy."""
    a_training: str = ""
    """What A's training did for groups: ``reweigh by sex``; empty where nothing, or nobody knows."""
    b_training: str = ""


def fairness_compared(a: Side, b: Side) -> FairnessCompared | None:
    """Both side by side; None where the suite has not judged both, or compared no groups that both have."""
    mine, theirs = _found(a), _found(b)
    if mine is None or theirs is None:
        return None
    pairs = _pairs(mine.measures, theirs.measures)
    measures: dict[str, dict[str, Pair]] = {}
    for name in pairs:
        column, _, measure = name.rpartition("/")
        if measure in MEASURES:
            measures.setdefault(column, {})[measure] = pairs[name]
    if not measures:
        return None
    ordered = {column: {name: found[name] for name in MEASURES if name in found} for column, found in measures.items()}
    of_b = {one.title: _accuracy(one) for one in theirs.tables}
    groups = {one.title: _pairs(_accuracy(one), of_b.get(one.title, {})) for one in mine.tables}
    groups = {title: found for title, found in groups.items() if found}
    return FairnessCompared(dict(sorted(ordered.items())), groups, _training(a), _training(b))


def _found(side: Side) -> SuiteResult | None:
    found = side.evaluation.suites.get(SUITE) if side.evaluation else None
    return found if found is not None and not found.skipped else None


def _pairs(mine: Mapping[str, Estimate], theirs: Mapping[str, Estimate]) -> dict[str, Pair]:
    return {name: Pair(one, theirs[name], apart(one, theirs[name])) for name, one in mine.items() if name in theirs}


def _accuracy(table: SuiteTable) -> Estimates:
    """Each group's accuracy; nothing of a table that has none."""
    if "accuracy" not in table.columns:
        return {}
    place = table.columns.index("accuracy")
    return {name: found for name, row in table.rows.items() if (found := row[place]) is not None}


def _training(side: Side) -> str:
    groups = side.run.recipe.data.groups if side.run is not None else None
    return f"{groups.method} by {' and '.join(groups.columns)}" if groups is not None and groups.columns else ""
