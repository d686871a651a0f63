"""Behavioural tests (CheckList, Ribeiro et al. 2020, arXiv:2005.04118): what a model must be able to say, what must not change
its answer, and which way a change must move it.

The tests stand in a YAML file (:mod:`tunesmith.recipe.behaviour`); each has a failure rate with its interval.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.errors import DataError, UserError, nearest
from tunesmith.evaluation import perturbations
from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate, wilson
from tunesmith.evaluation.suites import words
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.cases import Case, cases_of
from tunesmith.recipe.behaviour import Behaviour, BehaviourTest, parse
from tunesmith.recipe.explain import dotted

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.tasks.base import Answer, State, Task

TITLE = "Behaviour"
MOST_SHOWN = 5
"""Failures of a test that are shown."""


@dataclass(frozen=True)
class _Judged:
    """How a test went."""

    test: BehaviourTest
    n: int
    failures: list[dict[str, Any]]
    unanswered: int
    skipped: str = ""

    def rate(self, confidence: float) -> Estimate:
        """The share of the cases that failed."""
        return _rate(len(self.failures), self.n, confidence)


def read(place: str) -> Behaviour:
    """The tests of a file. Raises :class:`UserError` with every mistake in it, each with its line."""
    try:
        text = storage.read_text(place)
    except FileNotFoundError:
        raise UserError(f"evaluation.behaviour: there is no file {place}\n    → Correct the path") from None
    found, flaws = parse(text)
    if flaws:
        count = f"{len(flaws)} mistake{'s' if len(flaws) != 1 else ''} in {place}"
        lines = (f"  {place}:{one.line}: {dotted(one.keys) or 'tests'}: {one.what}\n      → {one.fix}" for one in flaws)
        raise UserError("\n".join([count, *lines]))
    return found


def check(split: Split, task: Task, state: State, settings: EvaluationSection) -> None:
    """Refuse a file with mistakes, and labels, roles and perturbations that there are not. Raises :class:`UserError`."""
    if settings.behaviour is None:
        raise UserError("evaluation.behaviour: no file of tests is named\n    → Name one: evaluation.behaviour=tests.yaml")
    tests = read(settings.behaviour).tests
    if not _fits(task):
        return
    labels, roles = [str(label) for label in state.get("labels", ())], [role for role in task.columns if role != task.target]
    for test in tests:
        where = f"{settings.behaviour}:{test.line}: {test.name}"
        if "perturb" in test.change:
            _resolve(str(test.change["perturb"]), where)
        for name in (*test.expect, *([test.label] if test.label else ())):
            if name not in labels:
                raise DataError(f"{where}: the model has no class {name!r}\n    → {_meant(name, labels)}")
        for text in (*test.templates, *test.examples):
            for role in text if isinstance(text, dict) else ():
                if role not in roles:
                    raise DataError(f"{where}: {task.name} has no input {role!r}\n    → {_meant(role, roles)}")


def _resolve(name: str, where: str) -> None:
    """Raises :class:`UserError` for a perturbation that cannot be imported: once a model is trained it would be late."""
    try:
        perturbations.find([name], "text")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


@suite("labels", check=check)
def behaviour(bench: Bench) -> SuiteResult:
    """Asks every case of every test."""
    if not _fits(bench.target.task) or bench.settings.behaviour is None:
        return SuiteResult(TITLE, skipped=f"{bench.target.task.name} does not give a text a class")
    file, role = read(bench.settings.behaviour), next(iter(bench.target.task.columns))
    judged = []
    for done, test in enumerate(file.tests):
        if bench.progress:
            bench.progress("behaviour", done, len(file.tests))
        judged.append(_judge(bench, test, cases_of(test, file.lexicons, bench, role)))
    return _result(judged, bench.settings.confidence)


def _fits(task: Task) -> bool:
    """Whether it gives a text its class or classes."""
    first = next(iter(task.columns.values()))
    return first.kind == "text" and task.columns[task.target].kind in ("label", "labels")


def _judge(bench: Bench, test: BehaviourTest, cases: Sequence[Case]) -> _Judged:
    """Asks a test's cases, all of them in one stream."""
    if test.type == "directional" and "scores" not in bench.target.provides:
        return _Judged(test, 0, [], 0, "the target tells no probabilities")
    stream = [example for case in cases for example in (case.given, *case.changed)]
    answers: list[Answer | None] = [None] * len(stream)
    for reply in bench.target.replies(stream):
        answers[reply.index] = reply.answer
    failures, n, unanswered, start = [], 0, 0, 0
    for case in cases:
        said = answers[start : start + 1 + len(case.changed)]
        start += len(said)
        known = [answer for answer in said if answer is not None]
        if len(known) < len(said):
            unanswered += 1
            continue
        n += 1
        if failed := _failed(test, case, known, bench.target.state):
            failures.append(failed)
    return _Judged(test, n, failures, unanswered)


def _failed(test: BehaviourTest, case: Case, said: Sequence[Answer], state: State) -> dict[str, Any] | None:
    """The failure as it is shown; None where the case is as it should be."""
    first = _label(said[0])
    shown = {"test": test.name, "text": _shown(case.given), "said": _listed(first)}
    if test.type == "minimum_functionality":
        right = set(test.expect) <= set(first) if state.get("multi_label") else first[0] in test.expect
        return None if right else {**shown, "expected": " or ".join(test.expect)}
    for example, answer in zip(case.changed, said[1:], strict=True):
        changed = {**shown, "changed": _shown(example), "then": _listed(_label(answer))}
        if test.type == "invariance":
            if _label(answer) != first:
                return {**changed, "expected": "the same"}
            continue
        k = [str(label) for label in state["labels"]].index(test.label)
        before, after = (float(one["probabilities"][k]) for one in (said[0], answer))
        if not _moved(before, after, test):
            return {
                **changed,
                "said": f"{test.label} {before:.3f}",
                "then": f"{test.label} {after:.3f}",
                "expected": test.direction.replace("_", " "),
            }
    return None


def _moved(before: float, after: float, test: BehaviourTest) -> bool:
    gap = after - before
    return {
        "up": gap > test.tolerance,
        "down": gap < -test.tolerance,
        "not_up": gap <= test.tolerance,
        "not_down": gap >= -test.tolerance,
    }[test.direction]


def _result(judged: Sequence[_Judged], sure: float) -> SuiteResult:
    asked = [one for one in judged if one.n]
    measures: Estimates = {f"{one.test.name}/failure_rate": one.rate(sure) for one in asked}
    failed, cases = Counter[str](), Counter[str]()
    for one in asked:
        failed[one.test.type] += len(one.failures)
        cases[one.test.type] += one.n
    measures |= {f"{kind}/failure_rate": _rate(failed[kind], cases[kind], sure) for kind in cases}
    n = sum(cases.values())
    if not n:
        return SuiteResult(TITLE, skipped="no case of any test was answered")
    measures["failure_rate"] = _rate(failed.total(), n, sure)
    rows: dict[str, list[Estimate | None]] = {one.test.name: [one.rate(sure)] for one in asked}
    marks = {one.test.name: one.test.type.replace("_", " ") for one in asked}
    notes = [f"{one.test.name} was not run: {one.skipped}." for one in judged if one.skipped]
    notes += [f"{one.test.name}: {one.unanswered} cases got no answer and are not counted." for one in judged if one.unanswered]
    return SuiteResult(
        TITLE,
        _summary(measures, asked, cases.total()),
        n,
        measures,
        [SuiteTable("Tests", ["failure_rate"], rows, marks=marks)],
        examples=[failure for one in asked for failure in one.failures[:MOST_SHOWN]],
        notes=notes,
    )


def _summary(measures: Estimates, asked: Sequence[_Judged], n: int) -> str:
    worst = max(asked, key=lambda one: len(one.failures) / one.n)
    most = (
        f", most in “{worst.test.name}”: {words.share(measures[f'{worst.test.name}/failure_rate'])}" if worst.failures else ""
    )
    return f"{words.share(measures['failure_rate'])} of {n:,} cases in {len(asked)} tests failed{most}."


def _rate(failed: int, n: int, confidence: float) -> Estimate:
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0, "none")
    return Estimate(failed / n, *wilson(failed / n, n, confidence), n, "wilson")


def _label(answer: Answer) -> list[str]:
    return [str(one) for one in answer["labels"]] if "labels" in answer else [str(answer["label"])]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "none"


def _shown(example: Any) -> str:
    return " | ".join(str(value) for value in example.values())


def _meant(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return (f"Did you mean {near}? " if near else "") + f"It has {', '.join(known[:20])}."
