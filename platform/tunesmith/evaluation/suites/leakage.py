"""Whether the judged rows stand in the data that the model was trained on, and what they do to its accuracy.

Rows are compared as data care compares them (:mod:`tunesmith.data.care`): exactly by the hash of their inputs, nearly by the
MinHash of texts or perceptual hashes of images, as ``data.clean`` of the run's recipe says. It matters most for data that is
given later: a run's own splits are parted when they are made.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.care import groups
from tunesmith.data.care.inputs import Inputs, of_split
from tunesmith.data.care.leaks import leaks
from tunesmith.data.care.treat import near_codes
from tunesmith.evaluation.examples import shown_value
from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate, bootstrap, wilson
from tunesmith.evaluation.suites import words
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.rates import Rate, difference
from tunesmith.evaluation.suites.training_rows import training_data
from tunesmith.recipe.clean import CleanSection

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.recipe import Recipe

TITLE = "Leakage"
TRAIN, JUDGED = "train", "judged"

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """The judged rows whose inputs stand in the training data."""

    exact: Indices
    near: Indices
    """Nearly, and not exactly."""
    pairs: list[tuple[int, int, str]]
    """The first of them: judged row, training row, ``exactly`` or ``nearly``."""
    near_looked_for: str
    """Why near ones were not looked for; empty where they were."""

    @property
    def rows(self) -> Indices:
        """All of them, sorted."""
        return np.union1d(self.exact, self.near)


@suite("labels")
def leakage(bench: Bench) -> SuiteResult:
    """The share of such rows, and the accuracy with and without them."""
    data = training_data(bench)
    if isinstance(data, str):
        return SuiteResult(TITLE, skipped=data)
    train = data.splits["train"]
    if bench.split.hash == train.hash:
        return SuiteResult(TITLE, skipped="the judged rows are the training rows themselves")
    assert bench.run is not None
    found = overlap(bench, train, looked_for(bench.run.recipe))
    sure, n = bench.settings.confidence, len(bench.split)
    measures = {
        name: _share(len(rows), n, sure)
        for name, rows in (("overlap", found.rows), ("exact_overlap", found.exact), ("near_overlap", found.near))
    }
    tables = [
        SuiteTable("Judged rows that stand in the training data", list(measures), {"judged rows": list(measures.values())})
    ]
    notes = [f"{n:,} judged rows against {len(train):,} training rows, by their inputs alone."]
    if found.near_looked_for:
        notes.append(f"Nearly equal rows were not looked for: {found.near_looked_for}.")
    if len(found.rows):
        figures, table = _with_and_without(bench, found.rows)
        measures |= figures
        tables.append(table)
    result = SuiteResult(TITLE, _summary(measures, found, n), n, measures, tables, notes=notes)
    return dataclasses.replace(result, examples=_samples(bench, train, found))


def looked_for(recipe: Recipe) -> CleanSection:
    """How near is near: as the recipe has it; looked for even where training did not ask for it."""
    section = recipe.data.clean
    return section.model_copy(update={"near_duplicates": "auto"}) if section.near_duplicates == "off" else section


def overlap(bench: Bench, train: Split, settings: CleanSection) -> Overlap:
    """The judged rows that are equal to a training row, or nearly."""
    task = bench.target.task
    inputs = Inputs(task, {TRAIN: of_split(train, task), JUDGED: of_split(bench.split, task)})
    codes = groups.codes_of(inputs.keys)
    near, looked = near_codes(inputs, codes, settings)
    span = inputs.span(JUDGED)
    ours, theirs = np.arange(span.start, span.stop), np.arange(span.start)
    same = leaks(theirs, ours, codes)
    close = leaks(theirs, np.setdiff1d(ours, same.gone), near)
    pairs = [(row - span.start, of, how) for how, one in (("exactly", same), ("nearly", close)) for row, of in one.examples]
    why = "" if looked["done"] else str(looked["why"])
    return Overlap(same.gone - span.start, close.gone - span.start, pairs, why)


def _share(rows: int, n: int, confidence: float) -> Estimate:
    return Estimate(rows / n, *wilson(rows / n, n, confidence), n, "wilson")


def _with_and_without(bench: Bench, rows: Indices) -> tuple[Estimates, SuiteTable]:
    """Accuracy and headline of all rows, of those that leak, and of the rest; and by how much the first flatters the last.

    The accuracy of all less that of the rest is the share of leaking rows times the difference between their accuracy and the
    others': two separate sets of rows, whose difference has Newcombe's interval.
    """
    sure, n = bench.settings.confidence, len(bench.records)
    right = np.asarray(bench.records["correct"].to_pylist(), dtype=bool)
    inside = np.zeros(n, dtype=bool)
    inside[rows] = True
    parts = {"all rows": np.ones(n, bool), "rows in the training data": inside, "rows without them": ~inside}
    name = bench.headline or bench.target.task.metric
    columns = list(dict.fromkeys(("accuracy", name)))
    table: dict[str, list[Estimate | None]] = {}
    for title, part in parts.items():
        hits = Rate(int(right[part].sum()), int(part.sum())).estimate(sure)
        other = [] if name == "accuracy" else [_headline(bench, name, part)]
        table[title] = [hits, *other]
    figures = {"accuracy": table["all rows"][0], "accuracy_without": table["rows without them"][0]}
    if not inside.all():
        leaked, rest = (Rate(int(right[part].sum()), int(part.sum())) for part in (inside, ~inside))
        share, (low, high) = float(inside.mean()), difference(leaked, rest, sure)
        gain = share * (leaked.value - rest.value)
        figures["accuracy_gain"] = Estimate(gain, share * low, share * high, n, "newcombe")
    known = {key: one for key, one in figures.items() if one is not None}
    return known, SuiteTable("With and without them", columns, table)


def _headline(bench: Bench, name: str, part: npt.NDArray[np.bool_]) -> Estimate | None:
    """The verdict's metric over some of the rows."""
    if not part.any():
        return None
    task, state, settings = bench.target.task, bench.target.state, bench.settings
    records = bench.records.filter(pa.array(part))
    found = bootstrap(
        lambda weights: task.aggregate(records, state, weights), len(records), settings.bootstrap_samples, settings.seed
    )
    return found.estimate(name, settings.confidence)


def _samples(bench: Bench, train: Split, found: Overlap) -> list[dict[str, Any]]:
    """Leaking rows beside the training rows that they are copies of."""
    role = next(iter(bench.target.task.columns))
    kind = bench.target.task.columns[role].kind
    right = bench.records["correct"].to_pylist()

    def cell(split: Split, row: int) -> str:
        value = shown_value(kind, split.example(row).get(role))
        return " ".join(value) if isinstance(value, list) else str(value)

    return [
        {
            "judged row": cell(bench.split, row),
            "stands": how,
            "training row": cell(train, of),
            "places": f"{bench.split.place(row)} = {train.place(of)}",
            "answer": "right" if right[row] else "wrong",
        }
        for row, of, how in found.pairs
    ]


def _summary(measures: Estimates, found: Overlap, n: int) -> str:
    if not len(found.rows):
        also = "" if found.near_looked_for else ", nor nearly"
        return (
            f"None of the {n:,} judged rows stands in the training data{also} (at most {100 * measures['overlap'].high:.2g} %)."
        )
    said = (
        f"{len(found.rows):,} of {n:,} judged rows stand in the training data, {len(found.exact):,} exactly and "
        f"{len(found.near):,} nearly: {words.share(measures['overlap'])}."
    )
    if "accuracy_gain" not in measures:
        return f"{said} There are no others to judge by."
    return (
        f"{said} Without them the accuracy is {words.share(measures['accuracy_without'])}; they add "
        f"{words.gap('accuracy', measures['accuracy_gain'])}."
    )
