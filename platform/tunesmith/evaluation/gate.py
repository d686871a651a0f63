"""A release gate judged: every rule passes, fails, or is not settled by so few examples.

A rule is judged by the interval of its measure (or, against a baseline, of the difference, turned so that more is better):

===========  ============================================  =====================================================
limit        passed                                        failed
===========  ============================================  =====================================================
min          the interval's lower end is at or above it    its upper end lies below it
max          the upper end is at or below it               its lower end lies above it
margin       the difference is at or above -margin: the    its upper end lies below -margin
             lower end of its interval
===========  ============================================  =====================================================

What is neither is *not settled*. A gate passes where all rules do: such an intersection-union test needs no correction (Berger
1982, doi:10.2307/1268126), and at 95 % a model that lies on a limit passes in at most 2.5 % of the cases. That a rule *failed*,
however, is one claim of many: it is made where Holm's p over all rules says so, else the rule is not settled. So with
``undecided: warn`` a sound model is turned away by chance in at most 2.5 % of the cases, however many rules there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tunesmith.errors import Mistake, RecipeError
from tunesmith.evaluation import decisions
from tunesmith.evaluation.against import Against
from tunesmith.evaluation.decisions import deviation_of, samples, turned
from tunesmith.evaluation.measures import fitting, is_better_when_more, measures, unknown
from tunesmith.evaluation.results import Estimates, Evaluation
from tunesmith.evaluation.statistics import Estimate
from tunesmith.recipe.gate import Gate, Rule

Status = Literal["passed", "failed", "not settled"]
Limit = Literal["min", "max", "margin"]

_RANK: Mapping[Status, int] = {"failed": 0, "not settled": 1, "passed": 2}


@dataclass(frozen=True)
class Check:
    """One limit on one measure."""

    measure: str
    limit: Limit
    threshold: float
    value: Estimate
    """The measure itself."""
    baseline: Estimate | None = None
    """That of the baseline, for a margin."""
    gain: Estimate | None = None
    """How much better the measure is than the baseline's, more being better; for a margin."""
    status: Status = "not settled"
    why: str = ""
    """Why it cannot be judged at all, where that is so."""
    p: float = 1.0
    """One-sided, that the limit is held."""
    adjusted: float = 1.0
    """The same after Holm over all checks of the gate that are judged by their interval."""
    needed: int | None = None
    """Examples, all in all, that would settle it, if the truth is as it looks."""

    @property
    def judged(self) -> Estimate:
        """What is held against the threshold."""
        return self.gain if self.gain is not None else self.value

    @property
    def bound(self) -> float:
        """What it is held against: the threshold, or the margin below 0."""
        return -self.threshold if self.limit == "margin" else self.threshold

    @property
    def room(self) -> float:
        """How far the value is on the right side of its limit; below 0 on the wrong one."""
        return (self.bound - self.judged.value) if self.limit == "max" else self.judged.value - self.bound


@dataclass(frozen=True)
class Outcome:
    """What became of one rule."""

    name: str
    status: Status
    blocks: bool
    """Whether it keeps the gate from passing."""
    checks: list[Check]
    """The worst one first."""
    few: list[str] = field(default_factory=list)
    """Measures of too few examples, which were not judged."""
    min_examples: int = 1
    """How many they would need."""


@dataclass(frozen=True)
class GateResult:
    """What became of a gate."""

    target: str
    baseline: str | None
    gate: str
    """The gate's file."""
    passed: bool
    outcomes: list[Outcome]
    n: int
    split: str
    data_hash: str | None = None
    confidence: float = 0.95
    date: str = ""
    """When, ISO 8601 in UTC."""
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    folder: str = ""
    """Where its files are; empty where none were written."""


def judge(gate: Gate, found: Evaluation, against: Against | None = None) -> list[Outcome]:
    """What becomes of each rule, in their order.

    Raises:
        RecipeError: every rule that asks for a measure that is not there, or for a margin without a baseline.
        DataError: the baseline was judged on different examples.
    """
    known = measures(found)
    mistakes: list[Mistake] = []
    parts = [_checks(index, gate, found, known, against, mistakes) for index in range(len(gate.rules))]
    if mistakes:
        raise RecipeError(mistakes, of="gate")
    decided = iter(
        _decided([(rule, one) for rule, (checks, _) in zip(gate.rules, parts, strict=True) for one in checks], found)
    )
    outcomes = []
    for rule, (checks, few) in zip(gate.rules, parts, strict=True):
        own = sorted((next(decided) for _ in checks), key=_badness)
        status: Status = own[0].status if own else "not settled"
        lets = (rule.undecided or gate.undecided) == "warn"
        blocks = status == "failed" or (status == "not settled" and not lets)
        outcomes.append(Outcome(rule.name or _named(rule), status, blocks, own, few, rule.min_examples))
    return outcomes


def _checks(
    index: int, gate: Gate, found: Evaluation, known: Estimates, against: Against | None, mistakes: list[Mistake]
) -> tuple[list[Check], list[str]]:
    """The limits of a rule on every measure that it means, not yet judged; and the measures of too few examples."""
    rule = gate.rules[index]
    names = fitting(rule.measure, known)
    if not names:
        what, fix = unknown(rule.measure, found, known)
        mistakes.append(gate.mistake(index, f"{rule.measure!r}: {what}", fix))
    if rule.margin is not None and against is None:
        mistakes.append(without_baseline(gate, index))
        return [], []
    several = len(names) > 1 or "*" in rule.measure
    few = [name for name in names if several and (known[name].n < rule.min_examples or math.isnan(known[name].value))]
    checks = []
    for name in names:
        if name in few:
            continue
        value = known[name]
        checks += [Check(name, "min", rule.min, value)] if rule.min is not None else []
        checks += [Check(name, "max", rule.max, value)] if rule.max is not None else []
        if rule.margin is not None and against is not None:
            pair = against.measure(name)
            if isinstance(pair, str):
                mistakes.append(
                    gate.mistake(index, f"{name!r}: {pair}", "remove the margin, or name another baseline", "margin")
                )
                continue
            more = is_better_when_more(name) if rule.better is None else rule.better == "more"
            checks.append(Check(name, "margin", rule.margin, value, pair[0], turned(pair[1], more)))
    return checks, few


def without_baseline(gate: Gate, index: int) -> Mistake:
    """That a rule has a margin, and nothing that it is against."""
    fix = "name one: --baseline RUN, or `baseline:` in the gate (`base` is the run's own pre-trained model)"
    return gate.mistake(index, "a margin needs a baseline", fix, "margin")


def _decided(checks: list[tuple[Rule, Check]], found: Evaluation) -> list[Check]:
    """Each check with its status: Holm's p over all that are judged by an interval."""
    confidence = found.confidence
    ps = [_p(one, confidence) for _, one in checks]
    tests = [k for k, (rule, one) in enumerate(checks) if rule.by == "interval" and math.isfinite(_ends(one)[1])]
    adjusted = dict(zip(tests, decisions.holm([ps[k] for k in tests]), strict=True))
    decided = []
    for k, (rule, one) in enumerate(checks):
        status, why = _status(rule, one, adjusted.get(k, 1.0), (1 - confidence) / 2)
        open_ = status == "not settled" and not why
        needed = samples(deviation_of(one.judged, confidence), abs(one.room), confidence) if open_ else None
        if needed is not None and needed <= one.judged.n:  # settled by itself, and open only as one of many
            needed = None
        decided.append(replace(one, status=status, why=why, p=ps[k], adjusted=adjusted.get(k, ps[k]), needed=needed))
    return decided


def _badness(one: Check) -> tuple[int, float]:
    return _RANK[one.status], one.room if math.isfinite(one.room) else -math.inf


def _p(one: Check, confidence: float) -> float:
    """One-sided p of "the limit is held"."""
    test = decisions.p_above if one.limit == "max" else decisions.p_below
    return test(one.judged, one.bound, confidence)


def _status(rule: Rule, one: Check, adjusted: float, alpha: float) -> tuple[Status, str]:
    judged = one.judged
    if math.isnan(judged.value):
        return "not settled", "it has no value: no example asks for it"
    if rule.by == "value":
        return ("passed" if one.room >= 0 else "failed"), ""
    passing, failing = _ends(one)
    if math.isnan(passing) and math.isnan(failing):
        return "not settled", "it has no interval: write by: value"
    if passing <= one.bound if one.limit == "max" else passing >= one.bound:
        return "passed", ""
    beyond = failing > one.bound if one.limit == "max" else failing < one.bound
    if beyond and adjusted <= alpha:
        return "failed", ""
    end = "upper" if one.limit == "max" else "lower"
    return "not settled", f"its interval has no {end} end: write by: value" if math.isnan(passing) else ""


def _ends(one: Check) -> tuple[float, float]:
    """The end of the interval by which a limit is passed, and that by which it fails; NaN where there is none."""
    return (one.judged.high, one.judged.low) if one.limit == "max" else (one.judged.low, one.judged.high)


def _named(rule: Rule) -> str:
    """A rule in a line.

    >>> _named(Rule(measure="accuracy", min=0.9)), _named(Rule(measure="f1", margin=0.01))
    ('accuracy ≥ 0.9', 'f1 not more than 0.01 below the baseline')
    """
    limits = [f"≥ {rule.min:g}"] if rule.min is not None else []
    limits += [f"≤ {rule.max:g}"] if rule.max is not None else []
    beyond = (
        [f"not more than {rule.margin:g} {'below' if _more(rule) else 'above'} the baseline"] if rule.margin is not None else []
    )
    by = " (value)" if rule.by == "value" else ""
    return f"{rule.measure} {' and '.join(limits + beyond)}{by}"


def _more(rule: Rule) -> bool:
    return is_better_when_more(rule.measure) if rule.better is None else rule.better == "more"
