"""Slices where a model is significantly worse than elsewhere, found among the values of columns and of pairs of columns.

Each slice's share of right examples is held against that of all other examples (Fisher's exact test, one-sided), and all of
them together are corrected (Holm 1979): of slices that are no worse, one or more is reported in 5 % of the cases at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.evaluation.results import SuiteResult, SuiteTable
from tunesmith.evaluation.slices import MOST_VALUES, slice_columns, slices_of
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.rates import Rate, difference

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.tasks.base import State, Task

TITLE = "Weak slices"
KEY = "evaluation.weak_slices.columns"
LENGTH = "input length"
"""A column that is looked at too where examples differ in length: in tokens."""
MOST_COLUMNS = 20
MOST_SHOWN = 20


@dataclass(frozen=True)
class Weak:
    """A slice with its test."""

    name: str
    columns: frozenset[str]
    rows: npt.NDArray[np.int64]
    inside: Rate
    outside: Rate
    p: float
    """Of Fisher's test."""
    adjusted: float = 1.0
    """After Holm's correction over all slices looked at."""


def check(split: Split, task: Task, state: State, settings: EvaluationSection) -> None:
    """Refuse columns that there are not. Raises :class:`DataError`."""
    slice_columns(split.rows(), settings.weak_slices.columns, KEY)


@suite("labels", check=check)
def weak_slices(bench: Bench) -> SuiteResult:
    """The slices that are significantly worse, worst first."""
    section, sure = bench.settings.weak_slices, bench.settings.confidence
    right = np.asarray(bench.records["correct"].to_pylist(), dtype=bool)
    columns, notes = _columns(bench)
    if not columns:
        return SuiteResult(TITLE, skipped="the data has no column beside its roles whose values make slices")
    found = adjusted([_tested(*one, right) for one in _slices(columns, section.pairs, section.min_examples, len(right))])
    weak = _telling([one for one in found if one.adjusted <= 1 - sure])
    n, tried = len(right), len(found)
    measures = {"found": Estimate(float(len(weak)), float("nan"), float("nan"), n, "none")}
    rows: dict[str, list[Estimate | None]] = {}
    for one in weak[:MOST_SHOWN]:
        inside, outside = one.inside.estimate(sure), one.outside.estimate(sure)
        rows[one.name] = [inside, outside, _gap(one, sure)]
    large = [one for one in found if one.inside.n >= section.min_examples]
    if large:
        worst = min(large, key=lambda one: one.inside.value)
        measures["worst/accuracy"] = worst.inside.estimate(sure)
        measures["worst/gap"] = _gap(worst, sure)
    notes.insert(0, f"{tried:,} slices of {len(columns)} columns were looked at: {', '.join(columns)}.")
    marks = {one.name: f"p = {one.adjusted:.2g} after Holm" for one in weak}
    table = SuiteTable("Significantly worse", ["accuracy", "accuracy_elsewhere", "accuracy_gap"], rows, marks=marks)
    return SuiteResult(TITLE, _summary(weak, tried), n, measures, [table] if rows else [], notes=notes)


def adjusted(found: list[Weak]) -> list[Weak]:
    """The slices by p-value, with Holm's adjusted ones: the largest so far of (m - i) p_i."""
    ordered = sorted(found, key=lambda one: one.p)
    most, corrected = 0.0, []
    for place, one in enumerate(ordered):
        most = max(most, min(1.0, (len(ordered) - place) * one.p))
        corrected.append(Weak(one.name, one.columns, one.rows, one.inside, one.outside, one.p, most))
    return corrected


def _columns(bench: Bench) -> tuple[dict[str, dict[str, npt.NDArray[np.int64]]], list[str]]:
    """Column → value → its examples; and what a reader must know."""
    rows, section, task = bench.split.rows(), bench.settings.weak_slices, bench.target.task
    roles = [rows[role] for role in task.columns if role in rows.column_names]  # under the user's name they are there again
    free = [name for name in rows.column_names if name not in task.columns]
    named = section.columns or [
        name for name in free if _cuts(rows[name]) and not any(rows[name].equals(role) for role in roles)
    ]
    notes = []
    if len(named) > MOST_COLUMNS:
        notes.append(f"Only the first {MOST_COLUMNS} of {len(named)} columns were looked at; name others in {KEY}.")
    found = {name: slices_of(column)[0] for name, column in slice_columns(rows, named[:MOST_COLUMNS], KEY).items()}
    if task.ragged and not section.columns:
        found[LENGTH] = slices_of(pa.array(bench.split.lengths.astype(np.float64)))[0]
    return {name: values for name, values in found.items() if len(values) > 1}, notes


def _cuts(column: pa.ChunkedArray) -> bool:
    """Whether a column's values make slices: numbers, or few different words."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return True
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)) and pc.count_distinct(column).as_py() <= MOST_VALUES


def _slices(
    columns: Mapping[str, Mapping[str, npt.NDArray[np.int64]]], pairs: bool, least: int, n: int
) -> Iterator[tuple[str, frozenset[str], npt.NDArray[np.int64]]]:
    """Name, columns and examples of each slice that is large enough and leaves something to be held against."""
    for name, values in columns.items():
        for value, rows in values.items():
            if least <= len(rows) < n:
                yield f"{name} = {value}", frozenset([name]), rows
    for one, other in combinations(columns, 2) if pairs else ():
        for a, rows in columns[one].items():
            for b, those in columns[other].items():
                both = np.intersect1d(rows, those, assume_unique=True)
                if least <= len(both) < min(len(rows), len(those)):
                    yield f"{one} = {a}, {other} = {b}", frozenset([one, other]), both


def _tested(name: str, columns: frozenset[str], rows: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]) -> Weak:
    from scipy.stats import hypergeom

    hits, every, n = int(right[rows].sum()), int(right.sum()), len(right)
    # Of the hypergeometric number of right examples among the slice's: so few, or fewer.
    p = float(hypergeom.cdf(hits, n, every, len(rows)))
    return Weak(name, columns, rows, Rate(hits, len(rows)), Rate(every - hits, n - len(rows)), p)


def _telling(weak: list[Weak]) -> list[Weak]:
    """Without pairs that are no worse than one of their columns' own slices, which is weak already; the worst first."""
    single = [one for one in weak if len(one.columns) == 1]

    def tells(pair: Weak) -> bool:
        around = [one for one in single if one.columns < pair.columns and np.isin(pair.rows, one.rows).all()]
        return all(pair.inside.value < one.inside.estimate(0.95).low for one in around)

    kept = [one for one in weak if len(one.columns) == 1 or tells(one)]
    return sorted(kept, key=lambda one: one.inside.value)


def _gap(one: Weak, confidence: float) -> Estimate:
    """How much less is right inside than elsewhere."""
    value = one.outside.value - one.inside.value
    return Estimate(value, *difference(one.outside, one.inside, confidence), one.inside.n, "newcombe")


def _summary(weak: list[Weak], tried: int) -> str:
    if not weak:
        return f"No slice out of {tried:,} is significantly worse than the rest."
    worst = weak[0]
    return (
        f"{len(weak)} of {tried:,} slices are significantly worse than the rest; the worst is {worst.name}: "
        f"{100 * worst.inside.value:.1f} % right of {worst.inside.n:,}, elsewhere {100 * worst.outside.value:.1f} %."
    )
