"""The verdict on a run's model: predict the test split once, then every metric with its interval, beside the baselines.

Predictions are streamed to ``predictions.parquet``; everything else is computed from that file's columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tunesmith import storage
from tunesmith.data.prepare import prepare, prepare_frozen
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError, UserError, nearest
from tunesmith.evaluation.domains import domain_results, judged_apart, over_domains, worst_of
from tunesmith.evaluation.examples import best_and_worst
from tunesmith.evaluation.predictions import Progress, constant_records, in_blocks, read_predictions, write_predictions
from tunesmith.evaluation.results import Baseline, ClassResult, Estimates, Evaluation, SliceResult, compact
from tunesmith.evaluation.retention import judge_retention
from tunesmith.evaluation.slices import slice_columns, slices_of
from tunesmith.evaluation.statistics import Bootstrap, bootstrap, difference
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.runs import Artefact, Run
from tunesmith.tasks.base import State, Task
from tunesmith.tasks.weights import advice

if TYPE_CHECKING:
    from tunesmith.evaluation.judges import Judges

PREDICTIONS, VERDICT, EVALUATIONS = "predictions.parquet", "metrics.json", "evaluations"
BASE_MODEL, MAJORITY = "base model", "majority class"
FEW = 100
"""Examples below which the reader is warned that little can be told apart."""

CLASS_METRICS = ("precision", "recall", "f1", "support", "predicted")


def evaluate_run(
    run: Run,
    *,
    data: str | Mapping[str, str] | None = None,
    split: str | None = None,
    prepared: PreparedData | None = None,
    judges: Judges | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge the run's model and write ``metrics.json`` and ``predictions.parquet``.

    Without ``data`` and ``split`` this is the run's own verdict, on its test split (the validation split where there is none),
    in the run's folder; any other judgement goes to a folder under ``evaluations/``.

    Args:
        run: a finished run.
        data: other labelled data: a path, glob, URI or Hub id, relative to the working directory; or a mapping from names to
            such, each a domain that is judged by itself too.
        split: ``test``, ``validation`` or ``train`` of the run's own data.
        prepared: the run's prepared data, where it is open already; else it is looked up, or made again.
        judges: who answers for the run's models; this process where not said.
        progress: told how many examples are through.

    Raises:
        RunError: the run has no model yet.
        DataError: the data cannot be used, or is not what the run was trained with.
    """
    from tunesmith.evaluation.judges import Here

    start = time.monotonic()
    recipe, settings = run.recipe, run.recipe.evaluation
    judges = judges or Here(run)
    task, state = judges.task, judges.preprocessing.state
    own = functools.cache(lambda: prepared or _own_data(run, task, progress))
    judged, name = _judged_split(run, judges, own, data, split, progress)
    columns = slice_columns(judged.rows(), settings.slices)
    folder = run.file("") if data is None and split is None else run.file(f"{EVALUATIONS}/{_folder_name(data, name)}")

    place = storage.join(folder, PREDICTIONS)
    write_predictions(place, judges.records("model", judged, progress), judged, columns)
    records = read_predictions(place)
    model = _bootstrap(task, state, records, settings)
    headline = _headline(task, recipe.training.metric_for_best_model, model)
    apart = judged.domains.rows() if judged.domains is not None else {}
    by_domain = judged_apart(lambda part: _bootstrap(task, state, part, settings), records, apart)
    domains = domain_results(by_domain, _trained_on(run), settings.confidence, lambda metric: not _is_of_class(metric))

    found = Evaluation(
        run=run.name,
        task=task.name,
        split=name,
        n=len(judged),
        headline=headline,
        metrics={key: one for key, one in model.estimates(settings.confidence).items() if not _is_of_class(key)},
        per_class=_per_class(model, settings.confidence),
        baselines=_baselines(model, by_domain, judges, judged, own, run) if settings.baseline else {},
        slices={column: _slices(task, state, records, values, settings) for column, values in columns.items()},
        domains=domains,
        domain_mean=over_domains(domains),
        worst_domain=worst_of(domains, headline),
        retention=judge_retention(run, judges, own, progress) if data is None and split is None else {},
        charts=[compact(chart) for chart in task.charts(records, state)],
        confidence=settings.confidence,
        source=_said(data),
        data_hash=judged.hash,
        warnings=_warnings(model, judged, name, split, data, columns) + _uneven(state, run, data),
        folder=folder,
    )
    best, worst = best_and_worst(records, judged, task, state, settings.max_examples)
    found = dataclasses.replace(found, best=best, worst=worst, seconds=round(time.monotonic() - start, 3))
    storage.write_json(storage.join(folder, VERDICT), found.to_json())
    if folder == run.file(""):
        _record(run, found)
    return found


def judgement(run: Run, settings: EvaluationSection | None = None) -> Bootstrap:
    """The run's own verdict over resamples of its test rows, from its predictions; what two runs are compared by.

    ``settings`` are the run's own unless given; two runs of the same test rows under the same settings share their resamples.
    """
    from tunesmith.tasks import load_task

    state = Artefact.read(run.file("model")).state
    return _bootstrap(
        load_task(run.recipe.task), state, read_predictions(run.file(PREDICTIONS)), settings or run.recipe.evaluation
    )


def _own_data(run: Run, task: Task, progress: Progress | None) -> PreparedData:
    """The data that the run was trained on: where it was left, or prepared again."""
    place = run.manifest.get("prepared")
    if place:
        with contextlib.suppress(UserError):
            return PreparedData.open(place)
    return prepare(run.recipe, task, output_dir=run.recipe.training.output_dir, progress=progress)


def _judged_split(
    run: Run,
    judges: Judges,
    own: Any,
    data: str | Mapping[str, str] | None,
    split: str | None,
    progress: Progress | None,
) -> tuple[Split, str]:
    """The examples to judge, and the name of their split."""
    if data is not None:
        if split is not None:
            raise UserError(
                "--data and --split cannot both be given: other data is judged whole.\n    → Leave one of them out."
            )
        output_dir = run.recipe.training.output_dir
        given = prepare_frozen(
            run.recipe, judges.task, judges.preprocessing, data, output_dir=output_dir, base_dir=".", progress=progress
        )
        return given.splits["test"], "test"
    splits: Mapping[str, Split] = own().splits
    filled = [name for name in ("test", "validation", "train") if name in splits and len(splits[name])]
    name = split or next((one for one in filled if one != "train"), None)
    if name is None:
        raise DataError(
            "the run has neither test nor validation rows to judge by.\n"
            "    → Give labelled data with --data, or set data.split.test."
        )
    if name not in filled:
        near = nearest(name, filled)
        raise DataError(
            f"the run's data has no split {name!r} with rows.\n    → "
            + (f"Did you mean {near}? " if near else "")
            + f"It has {', '.join(filled)}."
        )
    trained_with = run.manifest.get("data", {}).get(name, {}).get("hash")
    if trained_with is not None and trained_with != splits[name].hash:
        raise DataError(
            f"the {name} split is not the one of this run: its rows have changed since (hash {splits[name].hash}, "
            f"then {trained_with}).\n    → Put the run's data back, or judge other data with --data FILE."
        )
    return splits[name], name


def _said(data: str | Mapping[str, str] | None) -> str | None:
    """Other data as it was given on the command line."""
    return ", ".join(f"{name}={place}" for name, place in data.items()) if isinstance(data, Mapping) else data


def _trained_on(run: Run) -> list[str] | None:
    """The domains that the training split has rows of; None where its data sets have no names."""
    held = run.manifest.get("data", {}).get("train", {}).get("domains")
    return [name for name, one in held.items() if one["rows"]] if held else None


def _folder_name(data: str | Mapping[str, str] | None, split: str) -> str:
    """``validation``, or the file's name with a stamp, so that no judgement overwrites another's."""
    if data is None:
        return split
    data = "-".join(data) if isinstance(data, Mapping) else data
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(storage.name(data)).stem).strip("-.") or "data"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _bootstrap(task: Task, state: State, records: pa.Table, settings: EvaluationSection) -> Bootstrap:
    return bootstrap(
        lambda weights: task.aggregate(records, state, weights), len(records), settings.bootstrap_samples, settings.seed
    )


def _headline(task: Task, chosen: str | None, model: Bootstrap) -> str:
    """The metric of the verdict: the recipe's where it is a real one, else the task's."""
    return next((m for m in (chosen, task.metric) if m in model.values and m not in ("loss", None)), next(iter(model.values)))


def _is_of_class(name: str) -> bool:
    return "/" in name and name.partition("/")[0] in CLASS_METRICS


def _per_class(model: Bootstrap, confidence: float) -> dict[str, ClassResult]:
    """The metrics called ``f1/LABEL`` by label."""
    labels = [name.partition("/")[2] for name in model.values if name.startswith("support/")]
    found = {}
    for label in labels:
        named = {base: f"{base}/{label}" for base in ("precision", "recall", "f1")}
        predicted = model.values.get(f"predicted/{label}")
        found[label] = ClassResult(
            support=int(model.values[f"support/{label}"]),
            metrics={base: model.estimate(name, confidence) for base, name in named.items() if name in model.values},
            predicted=None if predicted is None else int(predicted),
        )
    return found


def _baselines(
    model: Bootstrap, by_domain: Mapping[str, Bootstrap], judges: Judges, judged: Split, own: Any, run: Run
) -> dict[str, Baseline]:
    """The pre-trained model as it is, and the shares of the training labels, on the same examples; of each domain as well."""
    task, state, settings = judges.task, judges.preprocessing.state, run.recipe.evaluation
    found = {}

    def beside(place: str, title: str) -> Baseline:
        records = read_predictions(place)
        whole = _beside(model, _bootstrap(task, state, records, settings), title, settings)
        apart = judged.domains.rows() if judged.domains is not None else {}
        others = judged_apart(lambda part: _bootstrap(task, state, part, settings), records, apart)
        parts = {name: _beside(one, others[name], title, settings) for name, one in by_domain.items()}
        return dataclasses.replace(whole, domains=parts)

    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        place = str(Path(scratch, PREDICTIONS))
        title = "the pre-trained model"
        try:
            there = judges.has("base")
        except UserError as error:
            found[BASE_MODEL] = Baseline(title, skipped=f"it can no longer be loaded ({str(error).splitlines()[0]})")
        else:
            if not there:
                found[BASE_MODEL] = Baseline(title, skipped="its head answers with other classes")
            else:
                write_predictions(place, judges.records("base", judged), judged, {})
                found[BASE_MODEL] = beside(place, title)

        title = "guessing by the training labels' shares"
        try:
            answer = task.majority(in_blocks(own().splits["train"]), state)
        except UserError as error:
            found[MAJORITY] = Baseline(title, skipped=f"the training data is not there any more ({str(error).splitlines()[0]})")
        else:
            if answer is None:
                found[MAJORITY] = Baseline(title, skipped="this task has no such baseline")
            else:
                write_predictions(place, constant_records(answer, task, state, judged), judged, {})
                found[MAJORITY] = beside(place, title)
    return found


def _beside(model: Bootstrap, other: Bootstrap, title: str, settings: EvaluationSection) -> Baseline:
    names = [name for name in model.values if name in other.values and not _is_of_class(name)]
    metrics = other.estimates(settings.confidence)
    differences = {name: difference(model, other, name, settings.confidence) for name in names}
    return Baseline(title, {name: metrics[name] for name in names}, differences)


def _slices(
    task: Task, state: State, records: pa.Table, values: pa.Array, settings: EvaluationSection
) -> dict[str, SliceResult]:
    found = {}
    for value, rows in slices_of(values)[0].items():
        part = _bootstrap(task, state, records.take(pa.array(rows)), settings)
        metrics: Estimates = {k: one for k, one in part.estimates(settings.confidence).items() if not _is_of_class(k)}
        found[value] = SliceResult(len(rows), metrics)
    return found


def _warnings(
    model: Bootstrap, judged: Split, name: str, asked: str | None, data: Any, columns: Mapping[str, pa.Array]
) -> list[str]:
    """What a reader must know before trusting the numbers; ``asked`` is the split that was asked for."""
    said = []
    if name == "validation" and data is None:
        said.append(
            ("" if asked else "There is no test split. ")
            + "These are the validation rows, by which the checkpoint was chosen: expect a little less on new data."
        )
    if name == "train" and data is None:
        said.append("These are the training rows: the numbers say how well they were learned, not how good the model is.")
    if len(judged) < FEW:
        said.append(f"There are only {len(judged)} examples: the intervals are wide, and small differences mean nothing.")
    absent = [key.partition("/")[2] for key, value in model.values.items() if key.startswith("support/") and value == 0]
    if absent:
        shown = ", ".join(absent[:8]) + (" …" if len(absent) > 8 else "")
        said.append(f"{len(absent)} of the classes have no example here, and are not judged: {shown}.")
    if math.isnan(model.values.get("loss", 0.0)):
        said.append("The loss is not a number: the model's outputs are damaged.")
    for column, values in columns.items():
        left_out = slices_of(values)[1]
        if left_out:
            said.append(f"Of the column {column} only the commonest values are shown; {left_out} more are left out.")
    return said


def _uneven(state: State, run: Run, data: Any) -> list[str]:
    """That the classes were very uneven in training, and nothing was done about it; in the run's own verdicts."""
    said = advice(state, run.recipe.training) if data is None else None
    return [said] if said else []


def _record(run: Run, found: Evaluation) -> None:
    """Note the verdict in the manifest and in the artefact."""
    run.update(durations={"evaluate": found.seconds})
    place = run.file("model")
    summary = {name: None if math.isnan(one.value) else one.value for name, one in found.metrics.items()}
    dataclasses.replace(Artefact.read(place), metrics=summary).write(place)
