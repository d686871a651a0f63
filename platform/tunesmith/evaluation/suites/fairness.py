"""Whether groups of people (or of anything) are treated alike: rates of each group, and how far apart they are.

The definitions are fairlearn's (Weerts et al. 2023, arXiv:2303.16626). Of a class, in a group:

- *selection rate*: how often the model says it; *demographic parity* compares this between groups
- *true-* and *false-positive rate*: how often it says it where it is right, and where it is wrong; *equalised odds* compares
  both, and the larger difference (the smaller ratio) counts (Hardt et al. 2016, arXiv:1610.02413)

Of more than two classes each is held against the rest, and the class that differs most counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError, nearest
from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.slices import slice_columns, slices_of
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.rates import Rate, largest_difference, smallest_ratio
from tunesmith.evaluation.suites.said import Said, said_of

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.tasks.base import State, Task

TITLE = "Fairness"
KEY = "evaluation.fairness.groups"
JOIN = "+"
"""Between the columns of an intersection in the names of measures: ``sex+age``."""

Groups = dict[str, npt.NDArray[np.int64]]
"""Group → its examples."""

DIFFERENCES: tuple[str, ...] = (
    "accuracy_difference",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
)


@dataclass(frozen=True)
class _Group:
    """What the model did with the examples of one group."""

    right: Rate
    selected: list[Rate]
    """Of each class, how often it was said."""
    hit: list[Rate]
    """Of each class, how often it was said where it is right."""
    false: list[Rate]
    """… and where it is wrong."""


def check(split: Split, task: Task, state: State, settings: EvaluationSection) -> None:
    """Refuse columns and classes that there are not, and nobody to compare. Raises :class:`DataError`."""
    section = settings.fairness
    if not section.groups:
        raise DataError(f"{KEY}: nobody is named to compare\n    → Name columns of the data: {KEY}=COLUMN")
    slice_columns(split.rows(), section.groups, KEY)
    known = state.get("labels", [])
    if section.positive is not None and section.positive not in known:
        near = nearest(section.positive, known)
        raise DataError(
            f"evaluation.fairness.positive: the data has no class {section.positive!r}\n    → "
            + (f"Did you mean {near!r}? " if near else "")
            + f"It has {', '.join(known[:20])}."
        )


@suite("labels", check=check)
def fairness(bench: Bench) -> SuiteResult:
    """Every group's rates, and the largest differences between groups."""
    said = said_of(bench)
    if said is None:
        return SuiteResult(TITLE, skipped=f"{bench.target.task.name} has no classes of whole examples to select")
    section, sure = bench.settings.fairness, bench.settings.confidence
    chosen = _classes(said, section.positive)
    by_column, notes = _groups(bench)
    tables: list[SuiteTable] = []
    measures: Estimates = {}
    apart: dict[str, Estimates] = {}
    for key, groups in by_column.items():
        found = {name: _rates(said, rows, chosen) for name, rows in groups.items()}
        large = {name: one for name, one in found.items() if one.right.n >= section.min_group}
        apart[key] = _apart(large, sure) if len(large) > 1 else {}
        measures |= {f"{key}/{name}": one for name, one in apart[key].items()}
        tables.append(_table(key, found, large, said, chosen, sure))
        notes += _left_out(key, found, large, section.min_group)
    measures |= _worst(apart)
    summary = SuiteTable(
        "How far apart the groups are",
        list(DIFFERENCES),
        {key: [one.get(name) for name in DIFFERENCES] for key, one in apart.items()},
        note="Differences are those of the two groups that are farthest apart, 0 is equal; ratios are the smaller rate by the "
        "larger one, 1 is equal. Their intervals allow for the choice of the groups.",
    )
    notes.insert(0, _about(said, chosen))
    return SuiteResult(TITLE, _summary(measures, apart), len(bench.records), measures, [summary, *tables], notes=notes)


def _classes(said: Said, positive: str | None) -> list[int]:
    """The classes whose selection is compared."""
    if positive is not None:
        return [said.labels.index(positive)]
    return [1] if len(said.labels) == 2 and not said.several else list(range(len(said.labels)))


def _groups(bench: Bench) -> tuple[dict[str, Groups], list[str]]:
    """The examples of each group, by column and by columns together; and what a reader must know of them."""
    section, notes = bench.settings.fairness, []
    single: dict[str, Groups] = {}
    for name, column in slice_columns(bench.split.rows(), section.groups, KEY).items():
        single[name], more = slices_of(column)
        if more:
            notes.append(
                f"Of the column {name} only the {len(single[name])} commonest values are compared; it has {more} more."
            )
    found = dict(single)
    names = list(single)
    sizes = (2, len(names)) if len(names) > 2 else (2,)
    for size in sizes if section.intersections else ():
        for some in combinations(names, size):
            found[JOIN.join(some)] = reduce(_crossed, (single[one] for one in some))
    return found, notes


def _crossed(one: Groups, other: Groups) -> Groups:
    both = {f"{a}, {b}": np.intersect1d(rows, those) for a, rows in one.items() for b, those in other.items()}
    return {name: rows for name, rows in both.items() if len(rows)}


def _rates(said: Said, rows: npt.NDArray[np.int64], classes: list[int]) -> _Group:
    truth, guess = said.truth[rows], said.said[rows]

    def each(where: Callable[[int], npt.NDArray[np.bool_]]) -> list[Rate]:
        return [Rate(int(guess[where(k), k].sum()), int(where(k).sum())) for k in classes]

    return _Group(
        right=Rate(int(said.right[rows].sum()), len(rows)),
        selected=each(lambda _: np.ones(len(rows), dtype=bool)),
        hit=each(lambda k: truth[:, k]),
        false=each(lambda k: ~truth[:, k]),
    )


def _apart(groups: Mapping[str, _Group], sure: float) -> Estimates:
    """The largest differences and smallest ratios between groups, over the classes."""
    every = list(groups.values())
    classes = range(len(every[0].selected))
    selected = [[one.selected[k] for one in every] for k in classes]
    odds = [[rates[k] for rates in side] for k in classes for side in ([g.hit for g in every], [g.false for g in every])]
    return {
        "accuracy_difference": largest_difference([[one.right for one in every]], sure),
        "demographic_parity_difference": largest_difference(selected, sure),
        "demographic_parity_ratio": smallest_ratio(selected, sure),
        "equalized_odds_difference": largest_difference(odds, sure),
        "equalized_odds_ratio": smallest_ratio(odds, sure),
    } | {"worst_group_accuracy": min((one.right for one in every), key=lambda rate: rate.value).estimate(sure)}


def _worst(apart: Mapping[str, Estimates]) -> Estimates:
    """Of each measure that of the columns where it is worst."""
    found = {}
    for name in (*DIFFERENCES, "worst_group_accuracy"):
        worst = max if name.endswith("difference") else min
        each = [one[name] for one in apart.values() if name in one and math.isfinite(one[name].value)]
        if each:
            found[name] = worst(each, key=lambda one: one.value)
    return found


def _table(
    key: str, found: Mapping[str, _Group], large: Mapping[str, _Group], said: Said, classes: list[int], sure: float
) -> SuiteTable:
    """A row for each group; of one class its rates, of several those of the class that differs most."""
    rates = _widest(large or found, len(classes))
    label = said.labels[classes[rates]]
    rows: dict[str, list[Estimate | None]] = {
        name: [rate.estimate(sure) for rate in (one.right, one.selected[rates], one.hit[rates], one.false[rates])]
        for name, one in found.items()
    }
    marks = {name: "small group" for name in found if name not in large}
    most = "" if len(classes) == 1 else ", the class that differs most"
    return SuiteTable(
        f"Groups of {key.replace(JOIN, ' and ')}",
        ["accuracy", "selection_rate", "true_positive_rate", "false_positive_rate"],
        rows,
        note=f"Rates of {label}{most}.",
        marks=marks,
    )


def _widest(groups: Mapping[str, _Group], classes: int) -> int:
    """The class whose rates are farthest apart."""

    def spread(k: int) -> float:
        sides = ([one.hit[k] for one in groups.values()], [one.false[k] for one in groups.values()])
        values = [[rate.value for rate in side if rate.n] for side in sides]
        return max((max(side) - min(side) for side in values if side), default=0.0)

    return max(range(classes), key=spread)


def _left_out(key: str, found: Mapping[str, _Group], large: Mapping[str, _Group], least: int) -> list[str]:
    small = [name for name in found if name not in large]
    said = []
    if small:
        shown = "; ".join(small[:6]) + (" …" if len(small) > 6 else "")
        few = f"{len(small)} of {len(found)} groups have fewer than {least} examples"
        said.append(f"{key}: {few} and are not in the differences: {shown}.")
    if len(large) < 2:
        said.append(f"{key}: fewer than two groups are large enough to be compared.")
    return said


def _about(said: Said, classes: list[int]) -> str:
    if len(classes) == 1:
        return f"Selection means the answer {said.labels[classes[0]]}."
    return f"Each of the {len(classes)} classes is held against the rest, and the one that differs most counts."


def _summary(measures: Estimates, apart: Mapping[str, Estimates]) -> str:
    if "equalized_odds_difference" not in measures:
        return "No two groups are large enough to be compared."
    odds, parity = measures["equalized_odds_difference"], measures["demographic_parity_difference"]
    key = next(name for name, one in apart.items() if one.get("equalized_odds_difference") is odds)
    return (
        f"Groups of {key.replace(JOIN, ' and ')} are farthest apart: equalised-odds difference {odds.value:.3f} "
        f"({odds.low:.3f} to {odds.high:.3f}); demographic parity at most {parity.value:.3f} ({parity.low:.3f} to "
        f"{parity.high:.3f}); the worst group's accuracy is {100 * measures['worst_group_accuracy'].value:.1f} %."
    )
