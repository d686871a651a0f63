"""What a model is set beside, on the same examples: the pre-trained model, guessing, the run that is served."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from tunesmith.data.prepared import PreparedData
from tunesmith.errors import UserError
from tunesmith.evaluation.domains import judged_apart
from tunesmith.evaluation.judging import PREDICTIONS, Judged, is_of_class
from tunesmith.evaluation.predictions import Records, constant_records, in_blocks, read_predictions, write_predictions
from tunesmith.evaluation.results import Baseline
from tunesmith.evaluation.statistics import Bootstrap, difference

BASE_MODEL, MAJORITY, IN_PROCESS = "base model", "majority class", "in process"


def base_model(judged: Judged) -> Baseline:
    """The pre-trained model as it is."""
    title, judges = "the pre-trained model", judged.case.judges
    try:
        there = judges.has("base")
    except UserError as error:
        return Baseline(title, skipped=f"it can no longer be loaded ({str(error).splitlines()[0]})")
    if not there:
        return Baseline(title, skipped="its head answers with other classes")
    return beside_records(judged, judges.records("base", judged.case.split), title)


def majority(judged: Judged, own: Callable[[], PreparedData]) -> Baseline:
    """The shares of the labels in the training data, which ``own`` opens."""
    title, scorer = "guessing by the training labels' shares", judged.case.scorer
    try:
        splits = own().splits
        if "train" not in splits:
            return Baseline(title, skipped="the training data is not here")
        answer = scorer.task.majority(in_blocks(splits["train"]), scorer.state)
    except UserError as error:
        return Baseline(title, skipped=f"the training data is not there any more ({str(error).splitlines()[0]})")
    if answer is None:
        return Baseline(title, skipped="this task has no such baseline")
    return beside_records(judged, constant_records(answer, scorer.task, scorer.state, judged.case.split), title)


def beside_records(judged: Judged, records: Records, title: str) -> Baseline:
    """Another model by its records of the split; of each domain as well."""
    with _stored(records, judged) as table:
        return beside_table(judged, table, title)


def beside_table(judged: Judged, table: pa.Table, title: str) -> Baseline:
    """The same by its rows of ``predictions.parquet``."""
    scorer = judged.case.scorer
    confidence = scorer.settings.confidence
    whole = _beside(judged.model, scorer(table), title, confidence)
    others = judged_apart(scorer, table, judged.domains)
    parts = {name: _beside(one, others[name], title, confidence) for name, one in judged.by_domain.items()}
    return dataclasses.replace(whole, domains=parts)


@contextmanager
def _stored(records: Records, judged: Judged) -> Iterator[pa.Table]:
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        place = str(Path(scratch, PREDICTIONS))
        write_predictions(place, records, judged.case.split, {})
        yield read_predictions(place)


def _beside(model: Bootstrap, other: Bootstrap, title: str, confidence: float) -> Baseline:
    names = [name for name in model.values if name in other.values and not is_of_class(name)]
    metrics = other.estimates(confidence)
    differences = {name: difference(model, other, name, confidence) for name in names}
    return Baseline(title, {name: metrics[name] for name in names}, differences)
