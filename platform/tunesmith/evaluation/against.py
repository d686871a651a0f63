"""A model's measures against a baseline's: paired by example wherever both answered the same ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa

from tunesmith.evaluation.baselines import BASE_MODEL
from tunesmith.evaluation.comparison import columns_of
from tunesmith.evaluation.measures import measures
from tunesmith.evaluation.pairing import aligned
from tunesmith.evaluation.results import Estimates, Evaluation
from tunesmith.evaluation.sides import Side
from tunesmith.evaluation.slices import slices_of
from tunesmith.evaluation.statistics import Bootstrap, Estimate, apart, difference

Found = tuple[Estimate, Estimate]
"""The baseline's measure, and how much more of it the model has."""


class Against(Protocol):
    """What margins are against."""

    name: str

    def measure(self, name: str) -> Found | str:
        """The baseline's measure and the difference, or why there is none."""


class AgainstSide:
    """Another evaluation, of the same examples."""

    def __init__(self, side: Side, baseline: Side, confidence: float) -> None:
        self.name = baseline.name
        self._side, self._baseline, self._confidence = side, baseline, confidence
        self._judged: dict[tuple[str, str], tuple[Bootstrap, Bootstrap] | None] = {}

    def measure(self, name: str) -> Found | str:
        """Paired for metrics, classes, slices and domains; of suites and old data the two are taken as independent.

        Raises :class:`DataError` where the two were judged on different examples.
        """
        column, value, metric = _place(name)
        pair = self._pair(column, value)
        if pair is not None and metric in pair[0].values and metric in pair[1].values:
            return pair[1].estimate(metric, self._confidence), difference(*pair, metric, self._confidence)
        if name in self._theirs and name in self._mine:
            return self._theirs[name], apart(self._mine[name], self._theirs[name])
        return f"the baseline {self.name} has no such measure"

    @cached_property
    def _mine(self) -> Estimates:
        return measures(self._side.evaluation) if self._side.evaluation else {}

    @cached_property
    def _theirs(self) -> Estimates:
        return measures(self._baseline.evaluation) if self._baseline.evaluation else {}

    @cached_property
    def _records(self) -> tuple[pa.Table, pa.Table]:
        return aligned(self._side, self._baseline)

    def _pair(self, column: str, value: str) -> tuple[Bootstrap, Bootstrap] | None:
        """Both on the examples with a value of a column, on all for no column; None where there are none such."""
        if (column, value) not in self._judged:
            mine, theirs = self._records
            rows = self._rows(column, value, mine)
            samples, seed = self._side.seed
            if rows is not None:
                mine, theirs = mine.take(pa.array(rows)), theirs.take(pa.array(rows))
            none = bool(column) and rows is None
            both = (self._side.judged(mine, samples, seed), self._baseline.judged(theirs, samples, seed)) if not none else None
            self._judged[column, value] = both
        return self._judged[column, value]

    def _rows(self, column: str, value: str, records: pa.Table) -> np.ndarray | None:
        values = columns_of(self._side, records).get(column) if column else None
        return slices_of(values)[0].get(value) if values is not None else None


class AgainstBase:
    """The pre-trained model that the run began with, as its evaluation has judged it.

    The evaluation of a served model judges none; ``of_run``, the verdict of its run on the same examples, then has it, and the
    two are taken as independent.
    """

    name = BASE_MODEL

    def __init__(self, evaluation: Evaluation, of_run: Evaluation | None = None) -> None:
        self._found = evaluation.baselines.get(BASE_MODEL)
        if self._found is None and of_run is not None and BASE_MODEL in of_run.baselines:
            base = of_run.baselines[BASE_MODEL]
            mine = {name: one for name, one in evaluation.metrics.items() if name in base.metrics}
            self._found = replace(
                base, differences={name: apart(one, base.metrics[name]) for name, one in mine.items()}, domains={}
            )

    def measure(self, name: str) -> Found | str:
        """Of whole metrics, and of those of domains."""
        if self._found is None:
            return "the evaluation has judged no base model (evaluation.baseline is false)"
        if self._found.skipped:
            return f"the base model was not judged: {self._found.skipped}"
        parts, metric = name.split("/"), name
        held = self._found
        if len(parts) == 3 and parts[0] == "domains" and parts[1] in held.domains:
            held, metric = held.domains[parts[1]], parts[2]
        if metric not in held.differences:
            return "only whole metrics, and those of domains, are judged of the base model"
        return held.metrics[metric], held.differences[metric]


class AgainstNothing:
    """No baseline can be held against what was judged by sums alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def measure(self, name: str) -> str:
        """Why there is none."""
        return "the rows that it was judged by are not here, and a margin is told example by example"


def _place(name: str) -> tuple[str, str, str]:
    """The column, its value and the metric in a measure's name; no column for one of all examples."""
    first, _, rest = name.partition("/")
    if first == "slices":
        column, _, tail = rest.partition("=")
        value, _, metric = tail.rpartition("/")
        return column, value, metric
    if first == "domains":
        value, _, metric = rest.partition("/")
        return "domain", value, metric
    return "", "", name
