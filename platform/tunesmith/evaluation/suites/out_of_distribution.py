"""Whether a model's doubt shows that an example is of another kind than it knows: held against named data, without labels.

- ``msp``: the largest probability (Hendrycks and Gimpel 2017, arXiv:1610.02136)
- ``energy``: the logarithm of the sum of the exponentials of the logits (Liu et al. 2020, arXiv:2010.03759), where the model is
  in this process, since answers do not carry logits

The ``auroc`` is the chance that an example of the judged split scores higher than one of the other data; ``fpr95`` is the share
of the other data that is let through by the threshold which lets through 95 % of the split.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith import storage
from tunesmith.data import columns, rows
from tunesmith.data.sources import resolve
from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate, wilson
from tunesmith.evaluation.suites import words
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.separation import auroc

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.evaluation.predictor import Predictor
    from tunesmith.recipe.data import Source
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.tasks.base import Example, State, Task

TITLE = "Out of distribution"
KEY = "evaluation.out_of_distribution"
MOST = 5000
"""Examples of each side, the first of the data and a draw of the split."""
ACCEPTED = 0.95
"""Share of the split that the threshold of ``fpr95`` lets through."""
RESAMPLES = 500

Array = npt.NDArray[np.float64]


def check(split: Split, task: Task, state: State, settings: EvaluationSection) -> None:
    """Refuse data that is not there or lacks an input. Raises :class:`DataError`."""
    if not settings.out_of_distribution:
        raise UserError(f"{KEY}: no data is named\n    → Name some: {KEY}: {{other: FILE}}")
    for name, source in settings.out_of_distribution.items():
        list(islice(_examples(name, source, task, split.columns), 1))


@suite("labels", "scores", check=check)
def out_of_distribution(bench: Bench) -> SuiteResult:
    """How well the scores tell each of the data sets from the judged split."""
    task, state = bench.target.task, bench.target.state
    if "probabilities" not in bench.records.column_names or state.get("multi_label"):
        return SuiteResult(TITLE, skipped=f"{task.name} does not give one class of many its probability")
    chosen = np.sort(np.random.default_rng(bench.settings.seed).permutation(len(bench.split))[:MOST])
    known = np.asarray(bench.records["confidence"].to_pylist(), dtype=np.float64)[chosen]
    predictor: Predictor | None = getattr(bench.target, "predictor", None)
    own = _energies(predictor, bench.split.examples(chosen)) if predictor else None
    measures: Estimates = {}
    table: dict[str, list[Estimate | None]] = {}
    notes = [] if own is not None else ["The target tells no logits, so there is no energy score."]
    for name, source in bench.settings.out_of_distribution.items():
        examples = list(islice(_examples(name, source, task, bench.split.columns), MOST))
        scored = [("msp", known, _confidences(bench, examples))]
        if predictor and own is not None and (other := _energies(predictor, examples)) is not None:
            scored.append(("energy", own, other))
        for score, inside, outside in scored:
            found = compared(inside, outside, bench.settings.confidence, bench.settings.seed)
            measures |= {f"{name}/{score}_{measure}": one for measure, one in found.items()}
        table[name] = [measures.get(f"{name}/{column}") for column in _COLUMNS]
    notes.append(f"{len(chosen):,} examples of the judged split against at most {MOST:,} of each data set.")
    summary = _summary(measures, list(bench.settings.out_of_distribution))
    return SuiteResult(TITLE, summary, len(chosen), measures, [SuiteTable("By data set", _COLUMNS, table)], notes=notes)


_WORDS = {"msp": "by its largest probability", "energy": "by its energy"}
_COLUMNS = ["msp_auroc", "msp_fpr95", "energy_auroc", "energy_fpr95"]


def compared(inside: Array, outside: Array, confidence: float, seed: int) -> Estimates:
    """``auroc`` and ``fpr95`` of scores that should be higher inside.

    The interval of the AUROC is that of :mod:`~tunesmith.evaluation.suites.separation`; that of ``fpr95`` is
    the percentile bootstrap of both sides, and at least Wilson's.
    """
    n, m = len(inside), len(outside)
    size = n + m
    if not n or not m:
        return {name: Estimate(math.nan, math.nan, math.nan, size, "none") for name in ("auroc", "fpr95")}
    value = _passed(inside, outside)
    rng = np.random.default_rng(seed)
    drawn = [_passed(rng.choice(inside, n), rng.choice(outside, m)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    least, most = wilson(value, m, confidence)
    return {
        "auroc": auroc(inside, outside, confidence),
        "fpr95": Estimate(value, min(float(low), least), max(float(high), most), size, "percentile"),
    }


def _passed(inside: Array, outside: Array) -> float:
    threshold = np.quantile(inside, 1 - ACCEPTED, method="lower")
    return float((outside >= threshold).mean())


def _examples(name: str, source: Source, task: Task, own: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The inputs of each row, in order; a role's column is called as in ``own``, the judged data, where such a one is there."""
    try:
        sources = resolve(source, "auto", os.getcwd(), "test")["test"]
    except DataError as error:  # it speaks of the split that it was asked for
        raise DataError(str(error).replace("data.test", f"{KEY}.{name}", 1)) from None
    for one in sources:
        for chunk in one.chunks():
            if not len(chunk.table):
                continue
            there = chunk.table.column_names
            said = {role: column for role, column in own.items() if role != task.target and column in there}
            mapping = columns.match(there, task, said, f"{KEY}.{name}", need_target=False)
            table = rows.by_role(chunk.table, mapping, task.columns, storage.parent(chunk.file))
            for example in rows.examples(table, task.columns):
                inputs = {role: value for role, value in example.items() if role != task.target}
                if task.check(inputs) is None:
                    yield inputs


def _confidences(bench: Bench, examples: Sequence[Example]) -> Array:
    answers = (reply.answer for reply in bench.target.replies(examples))
    return np.asarray([max(answer["probabilities"]) for answer in answers if answer is not None], dtype=np.float64)


def _energies(predictor: Predictor, examples: Sequence[Mapping[str, Any]]) -> Array | None:
    """The log of the sum of the exponentials of each example's logits; None where the model gives no logits of classes."""
    from tunesmith.evaluation.calibration import outputs

    task = predictor.task
    bare = [{role: value for role, value in example.items() if role != task.target} for example in examples]
    found = np.zeros(len(bare))
    for start in range(0, len(bare), 256):
        encoded = task.encode(bare[start : start + 256], predictor.preprocessing)
        with outputs(predictor.model) as caught:
            for places in predictor.batches(np.asarray([one.length for one in encoded], dtype=np.int32)):
                predictor.forward([encoded[k] for k in places])
                logits = getattr(caught[-1], "logits", None)
                if logits is None or logits.ndim != 2:
                    return None
                found[start + places] = logits.double().logsumexp(-1).cpu().numpy()
    return found


def _summary(measures: Estimates, names: Sequence[str]) -> str:
    said = []
    for name in names:
        areas = {score: measures[key] for score in ("msp", "energy") if (key := f"{name}/{score}_auroc") in measures}
        best = max(areas, key=lambda score: areas[score].value)
        said.append(f"AUROC against {name} {words.number(areas[best])} ({_WORDS[best]})")
    return "; ".join(said) + "."
