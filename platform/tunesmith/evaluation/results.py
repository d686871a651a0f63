"""What an evaluation found, as plain data: ``metrics.json`` is this, and the report draws nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith import storage
from tunesmith.evaluation.statistics import Estimate
from tunesmith.runs import notebook
from tunesmith.tasks.base import Chart
from tunesmith.tasks.metrics import ECE_BINS

FORMAT = 1
"""Version of the layout of ``metrics.json``."""

Estimates = dict[str, Estimate]


@dataclass(frozen=True)
class ClassResult:
    """One class, entity type or tag."""

    support: int
    """How often it is the right answer."""
    metrics: Estimates
    """``precision``, ``recall``, ``f1``."""
    predicted: int | None = None
    """How often it is the model's answer, where the task says."""


@dataclass(frozen=True)
class SliceResult:
    """The examples with one value of a column."""

    n: int
    metrics: Estimates


@dataclass(frozen=True)
class DomainResult:
    """The examples of one named data set."""

    n: int
    metrics: Estimates
    unseen: bool = False
    """Whether the training split has no row of it."""
    gap: Estimates = field(default_factory=dict)
    """Of one out of domain: how much worse each metric is than the mean of those in domain; empty for those in domain."""


@dataclass(frozen=True)
class Baseline:
    """Another model on the same examples."""

    title: str
    """In a sentence: ``the pre-trained model``."""
    metrics: Estimates = field(default_factory=dict)
    differences: Estimates = field(default_factory=dict)
    """How much more the fine-tuned model has of each metric, paired by example."""
    skipped: str = ""
    """Why it was not judged; empty where it was."""
    domains: dict[str, Baseline] = field(default_factory=dict)
    """The same on the examples of each domain."""


@dataclass(frozen=True)
class Retained:
    """What is left of the old, on one retention set."""

    by: str
    """``score``: by the task's metrics; ``drift``: by the similarity of representations."""
    n: int
    before: Estimates = field(default_factory=dict)
    """The base's metrics."""
    after: Estimates = field(default_factory=dict)
    """The fine-tuned model's."""
    differences: Estimates = field(default_factory=dict)
    """After minus before, paired by example."""
    cka: float | None = None
    """Linear CKA of the trunks' representations before and after, 1 where nothing moved."""
    skipped: str = ""
    """Why it was not judged; empty where it was."""


@dataclass(frozen=True)
class SuiteTable:
    """A table of a suite's section: estimates by row and column."""

    title: str
    columns: list[str]
    """Metrics, or conditions such as severities."""
    rows: dict[str, list[Estimate | None]]
    """Row → an estimate for each column; None where there is none."""
    metric: str = ""
    """What all numbers are values of, where the columns are conditions; empty where each column is a metric."""
    change: bool = False
    """Whether the numbers are differences, which have a sign."""
    note: str = ""
    """What a reader must know of this table."""
    marks: dict[str, str] = field(default_factory=dict)
    """Row → a word beside its name: ``small``."""
    folded: bool = False
    """Whether it is folded away until it is asked for."""


@dataclass(frozen=True)
class SuiteResult:
    """What one suite of the test bench found."""

    title: str
    """Of its section: ``Robustness``."""
    summary: str = ""
    """What was found, in a sentence or two for the terminal."""
    n: int = 0
    """Examples that it is made from."""
    measures: Estimates = field(default_factory=dict)
    """What a gate can ask for, as ``SUITE/NAME``; names may have parts: ``typos/accuracy``."""
    tables: list[SuiteTable] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    """Samples worth a look, as plain data that the suite's section of the report knows to show. A text that begins with
    ``data:`` is a picture, which is left out of ``metrics.json``."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know, in sentences."""
    skipped: str = ""
    """Why it was not run; empty where it was."""
    seconds: float = 0.0


@dataclass(frozen=True)
class ShownInput:
    """One input of an example, ready to be shown."""

    role: str
    kind: str
    """The column's kind: ``text``, ``image``, ``strings`` …"""
    value: Any
    """Text, a list of words, or a ``data:`` URI of a thumbnail (left out of ``metrics.json``)."""


@dataclass(frozen=True)
class ShownExample:
    """An example that the model got very right or very wrong."""

    id: str
    inputs: list[ShownInput]
    reference: Any
    prediction: Any
    correct: bool
    loss: float
    confidence: float | None = None
    probabilities: list[tuple[str, float]] = field(default_factory=list)
    """The likeliest classes, at most five, likeliest first."""


@dataclass(frozen=True)
class Samples:
    """Examples to look through, the worst first."""

    shown: list[ShownExample] = field(default_factory=list)
    """The wrong ones, the surest first, then the right ones, the least sure first."""
    n: int = 0
    """Of how many they are."""
    wrong: int = 0
    """How many of all are wrong."""


@dataclass(frozen=True)
class Evaluation:
    """A model judged on the examples of one split."""

    run: str
    task: str
    split: str
    """``test``, ``validation`` or ``train``."""
    n: int
    headline: str
    """The metric that the verdict is about; a key of ``metrics``."""
    metrics: Estimates
    per_class: dict[str, ClassResult] = field(default_factory=dict)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    """``base model`` and ``majority class``."""
    slices: dict[str, dict[str, SliceResult]] = field(default_factory=dict)
    """Column → value → what was found there."""
    domains: dict[str, DomainResult] = field(default_factory=dict)
    """Domain → what was found there, in the order of the recipe; empty where data sets have no names."""
    domain_mean: Estimates = field(default_factory=dict)
    """The mean over the domains, each weighing the same however many examples it has (macro mean)."""
    worst_domain: str | None = None
    """Where the headline metric is worst; None where there are fewer than two domains."""
    domain_gap: Estimates = field(default_factory=dict)
    """The generalisation gap: how much worse each metric is on the mean over the domains out of domain than over those in
    domain; empty where all domains are of one kind, or nobody knows."""
    retention: dict[str, Retained] = field(default_factory=dict)
    """Retention set → what was kept of it."""
    suites: dict[str, SuiteResult] = field(default_factory=dict)
    """Suite → what it found, in the order in which they ran."""
    charts: list[Chart] = field(default_factory=list)
    worst: list[ShownExample] = field(default_factory=list)
    best: list[ShownExample] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    """For the report; ``metrics.json`` has none of them, as ``predictions.parquet`` has all."""
    confidence: float = 0.95
    source: str | None = None
    """The data given with ``--data``; None for the run's own."""
    data_hash: str | None = None
    """Of the judged split's contents."""
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    """What a reader must know before trusting the numbers."""
    folder: str = ""
    """Where its files are: the run, or a folder under its ``evaluations/``."""
    target: str = ""
    """The URL of the served model that answered, and its version; empty where the run's model did, in this process."""

    def _repr_html_(self) -> str:
        """What a notebook shows: who was judged on what, the headline metrics with their intervals, the place of the report."""
        shown = {name: self.metrics[name] for name in notebook.first(self.headline, self.metrics)}
        rows = [(name, notebook.with_interval(one.value, one.low, one.high)) for name, one in shown.items()]
        place = f"Report: {storage.join(self.folder, 'report.html')}" if self.folder else ""
        return notebook.table(f"{self.target or self.run} on {self.split}, n = {self.n:,}", ("Metric", "Value"), rows, place)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``metrics.json``: the split's results under the split's name, undefined numbers as None."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "samples"}
        for name in ("worst", "best"):
            values[name] = [_without_media(example) for example in values[name]]
        values["suites"] = {name: _without_pictures(one) for name, one in self.suites.items()}
        found_by = ("run", "target", "task", "split", "headline", "confidence", "source", "data_hash")
        about = (*found_by, "seconds", "warnings", "folder")
        top = {name: values.pop(name) for name in about}
        found: dict[str, Any] = plain({"format": FORMAT, **top, self.split: values})
        return found

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Evaluation:
        """The evaluation of a ``metrics.json``; thumbnails are not in it."""
        top = {key: value for key, value in stored.items() if key not in ("format", stored["split"])}
        values = dict(stored[stored["split"]])
        return cls(
            **top,
            n=values["n"],
            metrics=_estimates(values["metrics"]),
            per_class={
                k: ClassResult(v["support"], _estimates(v["metrics"]), v["predicted"]) for k, v in values["per_class"].items()
            },
            baselines={k: _baseline(v) for k, v in values["baselines"].items()},
            slices={
                column: {k: SliceResult(v["n"], _estimates(v["metrics"])) for k, v in found.items()}
                for column, found in values["slices"].items()
            },
            domains={name: _domain(one) for name, one in values.get("domains", {}).items()},
            domain_mean=_estimates(values.get("domain_mean", {})),
            worst_domain=values.get("worst_domain"),
            domain_gap=_estimates(values.get("domain_gap", {})),
            retention={name: _retained(one) for name, one in values.get("retention", {}).items()},
            suites={name: _suite(one) for name, one in values.get("suites", {}).items()},
            charts=[Chart(**chart) for chart in values["charts"]],
            worst=[_example(one) for one in values["worst"]],
            best=[_example(one) for one in values["best"]],
        )


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as what JSON has; numbers that are not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def compact(chart: Chart) -> Chart:
    """The chart with as much data as is drawn: a reliability diagram's examples become bins of equal width.

    Each bin has ``low``, ``high``, ``count``, ``confidence`` (mean) and ``accuracy``; empty bins are left out.
    """
    if chart.kind != "reliability" or "bins" in chart.data:
        return Chart(chart.kind, chart.title, plain(chart.data))
    confidence = np.asarray(chart.data["confidence"], dtype=np.float64)
    correct = np.asarray(chart.data["correct"], dtype=np.float64)
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(place, minlength=ECE_BINS)
    sums = np.bincount(place, confidence, ECE_BINS), np.bincount(place, correct, ECE_BINS)
    bins = [
        {
            "low": k / ECE_BINS,
            "high": (k + 1) / ECE_BINS,
            "count": int(counts[k]),
            "confidence": float(sums[0][k] / counts[k]),
            "accuracy": float(sums[1][k] / counts[k]),
        }
        for k in np.flatnonzero(counts).tolist()
    ]
    return Chart(chart.kind, chart.title, {"bins": bins, "count": int(confidence.size)})


def _without_media(example: ShownExample) -> ShownExample:
    kept = [one for one in example.inputs if not (isinstance(one.value, str) and one.value.startswith("data:"))]
    return dataclasses.replace(example, inputs=kept)


def _without_pictures(suite: SuiteResult) -> SuiteResult:
    def bare(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: bare(one) for key, one in value.items() if not _is_picture(one)}
        return [bare(one) for one in value if not _is_picture(one)] if isinstance(value, list | tuple) else value

    return dataclasses.replace(suite, examples=[bare(example) for example in suite.examples])


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("data:image/")


def _estimates(stored: Mapping[str, Mapping[str, Any]]) -> Estimates:
    return {name: estimate(one) for name, one in stored.items()}


def estimate(stored: Mapping[str, Any]) -> Estimate:
    """What :func:`plain` made of one."""
    value, low, high = (math.nan if stored[key] is None else float(stored[key]) for key in ("value", "low", "high"))
    return Estimate(value, low, high, stored["n"], stored["method"])


def _baseline(stored: Mapping[str, Any]) -> Baseline:
    domains = {name: _baseline(one) for name, one in stored.get("domains", {}).items()}
    return Baseline(
        stored["title"], _estimates(stored["metrics"]), _estimates(stored["differences"]), stored["skipped"], domains
    )


def _domain(stored: Mapping[str, Any]) -> DomainResult:
    return DomainResult(stored["n"], _estimates(stored["metrics"]), stored["unseen"], _estimates(stored.get("gap", {})))


def _retained(stored: Mapping[str, Any]) -> Retained:
    metrics = {name: _estimates(stored[name]) for name in ("before", "after", "differences")}
    return Retained(stored["by"], stored["n"], **metrics, cka=stored["cka"], skipped=stored["skipped"])


def _suite(stored: Mapping[str, Any]) -> SuiteResult:
    tables = []
    for one in stored["tables"]:
        rows = {name: [None if cell is None else estimate(cell) for cell in row] for name, row in one["rows"].items()}
        tables.append(SuiteTable(**{**one, "rows": rows}))
    known = {**stored, "measures": _estimates(stored["measures"]), "tables": tables}
    return SuiteResult(**{**known, "charts": [Chart(**chart) for chart in stored["charts"]]})


def _example(stored: Mapping[str, Any]) -> ShownExample:
    values = dict(stored)
    values["inputs"] = [ShownInput(**one) for one in _sequence(values["inputs"])]
    values["probabilities"] = [(label, share) for label, share in _sequence(values["probabilities"])]
    return ShownExample(**values)


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else []
