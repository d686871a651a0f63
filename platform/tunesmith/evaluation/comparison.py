"""Two models' answers to the same examples, held against one another: differences, flips, and a verdict with a margin.

A - B is what A has more than B: A is the new one, B what it would replace. Differences are paired by example, with MOVER's
interval (of shares: method 10 of Newcombe, Statistics in Medicine 17, 1998, 2635-2650). How an interval becomes a verdict
is said in :mod:`tunesmith.evaluation.decisions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from tunesmith import storage
from tunesmith.errors import UserError, nearest
from tunesmith.evaluation import decisions
from tunesmith.evaluation.decisions import Verdict
from tunesmith.evaluation.fairness_compared import FairnessCompared, fairness_compared
from tunesmith.evaluation.flips import Flip, Flips, count, flipped
from tunesmith.evaluation.pairing import aligned
from tunesmith.evaluation.sides import Side
from tunesmith.evaluation.slices import slices_of
from tunesmith.evaluation.statistics import COUNTS, Bootstrap, Estimate, difference
from tunesmith.runs import notebook
from tunesmith.tasks.metrics import greater_is_better

MARGIN = 0.01
"""What may be lost where nobody says: a point of a share, a hundredth of a loss."""

FEWEST = 10
"""Examples of a slice below which it is not compared by itself."""


@dataclass(frozen=True)
class Compared:
    """One measure of both models."""

    a: Estimate
    b: Estimate
    difference: Estimate
    """A - B, as it is: of a loss less is better."""
    p: float
    """Two-sided, that there is none: exact McNemar for accuracy and a class's recall, by the paired bootstrap for all else."""
    adjusted: float
    """The same after Holm over its family."""
    margin: float
    verdict: Verdict
    deviation: float
    """Standard deviation of one example's difference."""
    needed: int | None = None
    """Examples, all in all, that would settle it, if the truth is as it looks; None where it is settled, or out of reach."""
    detectable: float = math.nan
    """The smallest true difference that so many examples show in 80 % of the cases."""


@dataclass(frozen=True)
class Comparison:
    """A against B, on the same examples."""

    a: str
    b: str
    n: int
    metrics: list[str]
    """Those that the verdict is about: keys of ``measures``."""
    verdict: Verdict
    measures: dict[str, Compared]
    """Every metric of all examples, those of single classes included. Holm's families: the metrics of the verdict; the rest."""
    flips: Flips
    slices: dict[str, dict[str, Compared]] = field(default_factory=dict)
    """Column → value → the first metric of the verdict there; all of them are one family."""
    fairness: FairnessCompared | None = None
    """How each treats groups, where the suite ``fairness`` has judged both."""
    examples: list[Flip] = field(default_factory=list)
    margin: float = MARGIN
    confidence: float = 0.95
    data_hash: str | None = None
    warnings: list[str] = field(default_factory=list)
    folder: str = ""
    """Where its page is; empty where none was written."""

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, what it is about with the differences' intervals, the place of the page."""
        rows = []
        for name in self.metrics:
            one = self.measures[name]
            numbers = [notebook.with_interval(each.value, each.low, each.high) for each in (one.a, one.b, one.difference)]
            rows.append((name, *numbers, one.verdict))
        head = ("Metric", self.a, self.b, "Difference", "Verdict")
        place = f"Page: {storage.join(self.folder, 'comparison.html')}" if self.folder else ""
        return notebook.table(f"{self.a} against {self.b}: {self.verdict}, n = {self.n:,}", head, rows, place)


def compare_sides(
    a: Side, b: Side, metrics: Sequence[str] = (), margin: float = MARGIN, confidence: float = 0.95
) -> Comparison:
    """Hold two models against one another.

    Args:
        a: the new one.
        b: what it would replace.
        metrics: what the verdict is about; the headline of A's evaluation where none is named.
        margin: what may be lost of each, in its own unit: 0.01 is a point of a share.
        confidence: level of the intervals.

    Raises:
        DataError: they were judged on different examples.
        UserError: a metric that is not there, or a margin below 0.
    """
    if not margin >= 0:
        raise UserError(f"--margin {margin:g} is below 0: it says how much may be lost\n    → Such as --margin 0.01")
    mine, theirs = aligned(a, b)
    samples, seed = a.seed
    one, other = a.judged(mine, samples, seed), b.judged(theirs, samples, seed)
    names = [name for name in one.values if name in other.values and not name.startswith(COUNTS)]
    chosen = list(dict.fromkeys(metrics)) or [_headline(a, names)]
    _check(chosen, names)
    flips = count(mine, theirs)
    compared = {name: measured(one, other, name, margin, confidence, flips) for name in names}
    measures = {
        **judge_family({name: compared[name] for name in chosen}, confidence),
        **judge_family({name: compared[name] for name in names if name not in chosen}, confidence),
    }
    return Comparison(
        a=a.name,
        b=b.name,
        n=len(mine),
        metrics=chosen,
        verdict=together([measures[name].verdict for name in chosen]),
        measures=measures,
        flips=flips,
        slices=_slices(a, b, mine, theirs, chosen[0], margin, confidence),
        fairness=fairness_compared(a, b),
        examples=flipped(a, b, mine, theirs),
        margin=margin,
        confidence=confidence,
        data_hash=a.evaluation.data_hash if a.evaluation else None,
        warnings=_warnings(a, b),
    )


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several metrics: worse where any is, better where one is and none is open.

    >>> together(["better", "equivalent"]), together(["better", "inconclusive"]), together(["better", "worse"])
    ('better', 'inconclusive', 'worse')
    """
    order: tuple[Verdict, ...] = ("worse", "inconclusive", "better")
    return next((one for one in order if one in verdicts), "equivalent")


def judge_family(family: Mapping[str, Compared], confidence: float = 0.95) -> dict[str, Compared]:
    """The verdicts of measures that are looked at together, with Holm's p."""
    adjusted = decisions.holm([one.p for one in family.values()])
    return {name: _decided(name, one, p, confidence) for (name, one), p in zip(family.items(), adjusted, strict=True)}


def _decided(name: str, one: Compared, adjusted: float, confidence: float) -> Compared:
    gain = decisions.turned(one.difference, greater_is_better(name))
    verdict = decisions.decide(gain, one.margin, adjusted, 1 - confidence)
    settled = verdict != "inconclusive" or not math.isfinite(one.difference.low)
    return Compared(
        a=one.a,
        b=one.b,
        difference=one.difference,
        p=one.p,
        adjusted=adjusted,
        margin=one.margin,
        verdict=verdict,
        deviation=one.deviation,
        needed=None if settled else decisions.settling(gain, one.margin, one.deviation, confidence),
        detectable=decisions.detectable(one.deviation, one.difference.n, confidence),
    )


def measured(one: Bootstrap, other: Bootstrap, name: str, margin: float, confidence: float, flips: Flips | None) -> Compared:
    """A measure before its family is known."""
    found = difference(one, other, name, confidence)
    deviation = decisions.deviation_of(found, confidence)
    p = decisions.p_paired(found.value, one.resamples[name] - other.resamples[name], found.n)
    metric, _, label = name.partition("/")
    if metric == "recall" and flips is not None and label in flips.by_class:
        p = flips.by_class[label]
    if name == "accuracy" and flips is not None and one.n:
        deviation = math.sqrt(max((flips.fixed + flips.broken) / one.n - found.value**2, 0.0))
        p = flips.p
    return Compared(
        one.estimate(name, confidence), other.estimate(name, confidence), found, p, p, margin, "inconclusive", deviation
    )


def _slices(
    a: Side, b: Side, mine: pa.Table, theirs: pa.Table, name: str, margin: float, confidence: float
) -> dict[str, dict[str, Compared]]:
    """The metric by the values of every column that A was sliced by, and by domain."""
    samples, seed = a.seed
    family: dict[tuple[str, str], Compared] = {}
    for title, column in columns_of(a, mine).items():
        for value, rows in slices_of(column)[0].items():
            if len(rows) < FEWEST:
                continue
            places = pa.array(rows)
            one, other = a.judged(mine.take(places), samples, seed), b.judged(theirs.take(places), samples, seed)
            if name in one.values and name in other.values:
                flips = count(mine.take(places), theirs.take(places))
                family[title, value] = measured(one, other, name, margin, confidence, flips)
    judged = judge_family({f"{name}/{k}": one for k, one in enumerate(family.values())}, confidence)
    found: dict[str, dict[str, Compared]] = {}
    for (title, value), compared in zip(family, judged.values(), strict=True):
        found.setdefault(title, {})[value] = compared
    return found


def columns_of(side: Side, records: pa.Table) -> dict[str, pa.Array]:
    """The columns by which its evaluation was sliced, as they lie beside the predictions; domains are one of them."""
    names = list(side.evaluation.slices) if side.evaluation else []
    if side.evaluation and len(side.evaluation.domains) > 1:
        names.append("domain")
    there = {name: f"data.{name}" if f"data.{name}" in records.column_names else name for name in names}
    return {name: records[column].combine_chunks() for name, column in there.items() if column in records.column_names}


def _headline(side: Side, names: Sequence[str]) -> str:
    said = side.evaluation.headline if side.evaluation else "accuracy"
    return said if said in names else names[0]


def _check(chosen: Sequence[str], names: Sequence[str]) -> None:
    for name in chosen:
        if name not in names:
            near = nearest(name, names)
            whole = [one for one in names if "/" not in one]
            raise UserError(
                f"--metric {name}: the two have no such metric in common\n    → "
                + (f"Did you mean {near}?" if near else f"They have {', '.join(whole)}")
            )


def _warnings(a: Side, b: Side) -> list[str]:
    said = []
    if a.task is None or b.task is None:
        which = " and ".join(side.name for side in (a, b) if side.task is None)
        said.append(f"Nothing says in which terms {which} answered: only accuracy and loss are compared.")
    if a.evaluation and b.evaluation and a.folder == b.folder:
        said.append("A and B are the same evaluation.")
    if a.evaluation and a.evaluation.split == "train":
        said.append("These are training rows: they say nothing of new data.")
    return said
