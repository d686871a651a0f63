"""How much worse a model gets when its inputs are damaged: each kind and severity beside the same examples as they are.

Every example of a seeded sample is asked again for each kind and severity. For each of them there is the headline metric and
its change against the undamaged answers, paired by example; over all of them, the share of examples that are right whatever is
done to them (the worst case, as in HELM, Liang et al. 2022, arXiv:2211.09110).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tunesmith.evaluation import perturbations
from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Bootstrap, Estimate, bootstrap, difference, wilson
from tunesmith.evaluation.suites import words
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.damage_samples import Ask, samples
from tunesmith.tasks.base import Chart, Example, Record
from tunesmith.tasks.metrics import greater_is_better, weighted_mean

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.tasks.base import State, Task

TITLE = "Robustness"

Condition = tuple[str, int]
"""A kind and a severity."""


@dataclass(frozen=True)
class _Plan:
    """What is asked: these examples of the split, damaged in these ways."""

    role: str
    kind: str
    chosen: np.ndarray
    ways: dict[str, perturbations.Perturbation]
    conditions: list[Condition]


def check(split: Split, task: Task, state: State, settings: EvaluationSection) -> None:
    """Refuse kinds of damage that there are not, or that do not fit the task's inputs. Raises :class:`UserError`."""
    found = perturbations.input_role(task)
    if found is not None:
        perturbations.find(settings.robustness.kinds, found[1])


@suite("labels", check=check)
def robustness(bench: Bench) -> SuiteResult:
    """Asks the damaged examples and holds the answers against those to the undamaged."""
    plan = _plan(bench)
    if plan is None:
        return SuiteResult(TITLE, skipped=f"no perturbation fits the inputs of {bench.target.task.name}")
    asked, changed = _asked(bench, plan)
    kept = np.flatnonzero(np.all([[one is not None for one in asked[condition]] for condition in plan.conditions], axis=0))
    if not len(kept):
        return SuiteResult(TITLE, skipped=f"{bench.target.name} answered no damaged example")
    clean = bench.records.take(pa.array(plan.chosen[kept]))
    before = _judged(bench, clean)
    after = {one: _judged(bench, _table([asked[one][k] for k in kept], clean)) for one in plan.conditions}
    right = np.all([[asked[one][k]["correct"] for k in kept] for one in plan.conditions], axis=0)  # type: ignore[index]
    right &= np.asarray(clean["correct"].to_pylist(), dtype=bool)
    shown = samples(bench, Ask(plan.role, plan.kind, plan.chosen, plan.conditions, asked), partial(_made, bench, plan))
    return dataclasses.replace(_result(bench, plan, before, after, right, changed), examples=shown)


def _plan(bench: Bench) -> _Plan | None:
    settings, found = bench.settings.robustness, perturbations.input_role(bench.target.task)
    if found is None:
        return None
    ways = perturbations.find(settings.kinds, found[1], bench.folders)
    n = len(bench.split)
    chosen = np.sort(np.random.default_rng(bench.settings.seed).permutation(n)[: settings.max_examples])
    return _Plan(*found, chosen, ways, [(name, severity) for name in ways for severity in sorted(set(settings.severities))])


def _asked(bench: Bench, plan: _Plan) -> tuple[dict[Condition, list[Record | None]], dict[str, int]]:
    """The record of each chosen example under each condition, None where it got no answer; how many each kind changed."""
    task, state = bench.target.task, bench.target.state
    width, total = len(plan.conditions), len(plan.conditions) * len(plan.chosen)
    found: dict[Condition, list[Record | None]] = {one: [None] * len(plan.chosen) for one in plan.conditions}
    changed = dict.fromkeys(plan.ways, 0)
    examples = bench.split.examples(plan.chosen)
    for done, reply in enumerate(bench.target.replies(_damaged(bench, plan, examples, changed)), start=1):
        place, which = divmod(reply.index, width)
        if reply.answer is not None:
            found[plan.conditions[which]][place] = task.score(reply.answer, examples[place], state)
        if bench.progress and done % 64 == 0:
            bench.progress("robustness", done, total)
    return found, changed


def _damaged(bench: Bench, plan: _Plan, examples: Sequence[Example], changed: dict[str, int]) -> Iterator[Example]:
    """Each example under each condition, one example after the other, so that an image is opened once."""
    for place, example in enumerate(examples):
        whole = perturbations.readable(example[plan.role], plan.kind)
        identity = str(bench.split.ids[int(plan.chosen[place])].as_py())
        for kind, severity in plan.conditions:
            made = _made(bench, plan, whole, identity, kind, severity)
            changed[kind] += not np.array_equal(made, whole)
            yield {**example, plan.role: perturbations.answerable(made, plan.kind)}


def _made(bench: Bench, plan: _Plan, whole: Any, identity: str, kind: str, severity: int) -> Any:
    return plan.ways[kind](whole, severity, perturbations.generator(bench.settings.seed, identity, kind, severity))


def _table(records: Sequence[Record | None], like: pa.Table) -> pa.Table:
    """Records as a table with the columns of the undamaged answers."""
    names = [name for name in like.column_names if records and records[0] is not None and name in records[0]]
    schema = pa.schema([like.schema.field(name) for name in names])
    return pa.Table.from_pylist([dict(one) for one in records if one is not None], schema=schema)


def _judged(bench: Bench, records: pa.Table) -> Bootstrap:
    """The headline metric over resamples that all conditions share."""
    task, state, settings, name = bench.target.task, bench.target.state, bench.settings, _metric(bench)
    if name == "accuracy":  # the share of right examples needs none of the other metrics
        right = np.asarray(records["correct"].to_pylist(), dtype=np.float64)
        judge: Any = lambda weights: {name: weighted_mean(right, weights)}  # noqa: E731
    else:
        judge = lambda weights: {name: task.aggregate(records, state, weights)[name]}  # noqa: E731
    return bootstrap(judge, len(records), settings.bootstrap_samples, settings.seed)


def _metric(bench: Bench) -> str:
    return bench.headline or bench.target.task.metric


def _result(
    bench: Bench,
    plan: _Plan,
    before: Bootstrap,
    after: dict[Condition, Bootstrap],
    right: np.ndarray,
    changed: dict[str, int],
) -> SuiteResult:
    name, sure, n = _metric(bench), bench.settings.confidence, before.n
    sign = 1 if greater_is_better(name) else -1
    severities = sorted({severity for _, severity in plan.conditions})
    clean = before.estimate(name, sure)
    values: dict[str, list[Estimate | None]] = {"as they are": [clean] * (len(severities) + 1)}
    changes: dict[str, list[Estimate | None]] = {}
    measures: Estimates = {f"clean/{name}": clean}
    for kind in plan.ways:
        damaged = changed[kind] > 0
        each = [after[kind, severity] for severity in severities]
        together = _mean(each, name)
        row = [one.estimate(name, sure) for one in each]
        apart = [_change(one, before, name, sure, damaged) for one in (*each, together)]
        values[kind], changes[kind] = [*row, together.estimate(name, sure)], list(apart)
        measures[f"{kind}/{name}"], measures[f"{kind}/drop"] = together.estimate(name, sure), _drop(apart[-1], sign)
        for severity, one, gap in zip(severities, row, apart, strict=False):
            measures[f"{kind}/{severity}/{name}"], measures[f"{kind}/{severity}/drop"] = one, _drop(gap, sign)
    everything = _mean(list(after.values()), name)
    apart_of_all = _change(everything, before, name, sure, any(changed.values()))
    measures[name], measures["drop"] = everything.estimate(name, sure), _drop(apart_of_all, sign)
    worst = float(right.mean())
    measures["worst_case"] = Estimate(worst, *wilson(worst, n, sure), n, "wilson")
    columns = [*(f"severity {one}" for one in severities), "mean"]
    every = len(plan.chosen) * len(severities)
    few = {kind: f"changes {count / every:.0%} of them" for kind, count in changed.items() if count < every}
    tables = [
        SuiteTable(f"Change by kind of damage, {name}", columns, changes, name, change=True, marks=few),
        SuiteTable(f"Values by kind of damage, {name}", columns, values, name, folded=True),
    ]
    chart = _chart(name, measures, plan, severities)
    return SuiteResult(TITLE, _summary(name, measures, plan), n, measures, tables, [chart], notes=_notes(bench, plan, n))


def _chart(name: str, measures: Estimates, plan: _Plan, severities: Sequence[int]) -> Chart:
    """The metric by severity, a line for each kind, beginning at the examples as they are (severity 0)."""
    clean = measures[f"clean/{name}"].value
    along = {kind: [measures[f"{kind}/{severity}/{name}"].value for severity in severities] for kind in plan.ways}
    mean = [float(np.mean([values[k] for values in along.values()])) for k in range(len(severities))]
    series: list[dict[str, Any]] = [
        {"label": kind.replace("_", " "), "points": list(zip([0, *severities], [clean, *values], strict=True))}
        for kind, values in along.items()
    ]
    if len(series) > 1:
        series.append({"label": "mean", "points": list(zip([0, *severities], [clean, *mean], strict=True)), "strong": True})
    return Chart("lines", "By severity", {"x": "severity", "y": name, "whole": True, "series": series})


def _mean(each: Sequence[Bootstrap], name: str) -> Bootstrap:
    """The mean of a metric over conditions of the same examples, resample by resample."""

    def over(values: Sequence[Any]) -> Any:
        return np.mean(np.stack([np.asarray(one) for one in values]), axis=0)

    return Bootstrap(
        each[0].n,
        {name: float(over([one.values[name] for one in each]))},
        {name: over([one.resamples[name] for one in each])},
        {name: over([one.jackknife[name] for one in each])},
    )


def _change(after: Bootstrap, before: Bootstrap, name: str, confidence: float, damaged: bool) -> Estimate:
    """After minus before, paired; exactly 0 where no input could be changed.

    Where inputs were changed and no resample tells, so many answers may yet flip as of a share of which none was seen.
    """
    if not damaged:
        return Estimate(0.0, 0.0, 0.0, before.n, "mover")
    found = difference(after, before, name, confidence)
    alike = np.allclose(after.resamples[name], before.resamples[name], rtol=0, atol=1e-12, equal_nan=True)
    if not greater_is_better(name) or not alike:
        return found
    most = wilson(0.0, before.n, confidence)[1]
    return dataclasses.replace(found, low=min(found.low, -most), high=max(found.high, most))


def _drop(change: Estimate, sign: int) -> Estimate:
    """How much worse: a change with its sign turned so that more is worse."""
    if sign < 0:
        return change
    return dataclasses.replace(change, value=0.0 - change.value, low=0.0 - change.high, high=0.0 - change.low)


def _summary(name: str, measures: Estimates, plan: _Plan) -> str:
    drops = {kind: measures[f"{kind}/drop"].value for kind in plan.ways if math.isfinite(measures[f"{kind}/drop"].value)}
    hardest = max(drops, key=lambda kind: drops[kind], default="")
    worst = f", most under {hardest.replace('_', ' ')}: {words.gap(name, measures[f'{hardest}/drop'])}" if hardest else ""
    return (
        f"Damaged inputs cost {words.gap(name, measures['drop'])} of {name} on average{worst}. "
        f"Right whatever is done to it: {words.share(measures['worst_case'])} of the examples."
    )


def _notes(bench: Bench, plan: _Plan, n: int) -> list[str]:
    said = [f"{n:,} of {len(bench.split):,} examples (drawn with seed {bench.settings.seed}) in {len(plan.ways)} ways, paired."]
    lost = len(plan.chosen) - n
    if lost:
        said.append(f"{lost:,} examples got no answer under some damage, and are left out of all of it.")
    if "frost" in plan.ways:
        said.append("Frost is made of seeded noise, not of the photographs of ImageNet-C; its figures are not comparable.")
    if plan.kind == "text":
        said.append("Words are those between white space; contractions and the irrelevant sentences are English.")
    return said
