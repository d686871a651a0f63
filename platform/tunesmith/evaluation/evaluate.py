"""The verdict on a run's model: predict the test split once, then every metric with its interval, beside the baselines.

Predictions are streamed to ``predictions.parquet``; everything else is computed from that file's columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import storage
from tunesmith.data.prepare import prepare, prepare_frozen
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError, UserError, nearest
from tunesmith.evaluation import baselines, parity, targets
from tunesmith.evaluation.baselines import BASE_MODEL, MAJORITY
from tunesmith.evaluation.judging import EVALUATIONS, VERDICT, Case, Judged, Scorer, judge
from tunesmith.evaluation.predictions import Progress
from tunesmith.evaluation.results import Baseline, Evaluation, SuiteResult
from tunesmith.evaluation.retention import judge_retention
from tunesmith.evaluation.suites.run import chosen, failures
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.runs import Artefact, Run
from tunesmith.tasks.base import State, Task
from tunesmith.tasks.weights import advice

if TYPE_CHECKING:
    from tunesmith.evaluation.judges import Judges
    from tunesmith.evaluation.targets import Target

COMPARED = 4
"""Examples that are answered alone too: as many forward passes more."""

Data = str | Mapping[str, str] | None
"""Other labelled data: a place, or places by the names of their domains; None for the run's own."""


def evaluate_run(
    run: Run,
    *,
    data: Data = None,
    split: str | None = None,
    prepared: PreparedData | None = None,
    judges: Judges | None = None,
    settings: EvaluationSection | None = None,
    ready: Callable[[], None] = lambda: None,
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
        settings: how it is judged, and which suites are run; as the run's recipe says where not given.
        ready: does what suites need before (train shadow models), once all that was asked for is known to be there.
        progress: told how many examples are through.

    Raises:
        RunError: the run has no model yet.
        DataError: the data cannot be used, or is not what the run was trained with.
    """
    from tunesmith.evaluation.judges import Here

    start = time.monotonic()
    judges, settings = judges or Here(run), settings or run.recipe.evaluation
    own = functools.cache(lambda: prepared or own_data(run, judges.task, progress))
    split_, name = judged_split(run, judges, own, data, split, progress)
    folder = run.file("") if data is None and split is None else run.file(f"{EVALUATIONS}/{folder_name(data, name)}")
    case = _case(run, judges, settings, split_, name, folder)
    suites = chosen(case, run)
    ready()
    checked = _alone(run, judges, split_)
    found, judged = judge(case, lambda judged: _beside(judged, own) if settings.baseline else {}, progress)
    benched = suites.run(judged, found.headline, _target(run, judges), run, progress) if suites.names else {}
    found = dataclasses.replace(
        found,
        retention=judge_retention(run, judges, own, progress) if data is None and split is None else {},
        suites={**checked, **benched},
        source=said(data),
        warnings=[
            *failures(benched),
            *filter(None, map(parity.mismatch, checked.values())),
            *split_warnings(name, split, data),
            *found.warnings,
            *_uneven(case.scorer.state, run, data),
        ],
    )
    found = dataclasses.replace(found, seconds=round(time.monotonic() - start, 3))
    storage.write_json(storage.join(folder, VERDICT), found.to_json())
    if folder == run.file(""):
        _record(run, found)
    return found


def _case(run: Run, judges: Judges, settings: EvaluationSection, split: Split, name: str, folder: str) -> Case:
    return Case(
        name=run.name,
        judges=judges,
        split=split,
        split_name=name,
        scorer=Scorer(judges.task, judges.preprocessing.state, settings),
        folder=folder,
        metric=run.recipe.training.metric_for_best_model,
        trained_on=trained_on(run),
    )


def _beside(judged: Judged, own: Callable[[], PreparedData]) -> dict[str, Baseline]:
    return {BASE_MODEL: baselines.base_model(judged), MAJORITY: baselines.majority(judged, own)}


def _alone(run: Run, judges: Judges, split: Split) -> dict[str, SuiteResult]:
    """The suite ``parity``: whether a few examples are answered alone as in a batch; not asked of a model on a cluster."""
    from tunesmith.evaluation.judges import Here

    if not isinstance(judges, Here):
        return {}
    return {"parity": parity.check(_target(run, judges), split, sample=COMPARED)}


def _target(run: Run, judges: Judges) -> Target:
    """The run's model as suites ask it: in this process, wherever the split was answered."""
    from tunesmith.evaluation import judges as kinds
    from tunesmith.evaluation.predictor import Predictor

    predictor = judges.predictor if isinstance(judges, kinds.Here) else Predictor.load(run.local_model())
    return targets.Here(predictor, run.name)


def own_data(run: Run, task: Task, progress: Progress | None) -> PreparedData:
    """The data that the run was trained on: where it was left, or prepared again."""
    place = run.manifest.get("prepared")
    if place:
        with contextlib.suppress(UserError):
            return PreparedData.open(place)
    return prepare(run.recipe, task, output_dir=run.recipe.training.output_dir, progress=progress)


def judged_split(
    run: Run,
    judges: Judges,
    own: Callable[[], PreparedData],
    data: Data,
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


def said(data: Data) -> str | None:
    """Other data as it was given on the command line."""
    return ", ".join(f"{name}={place}" for name, place in data.items()) if isinstance(data, Mapping) else data


def trained_on(run: Run) -> list[str] | None:
    """The domains that the training split has rows of; None where its data sets have no names."""
    held = run.manifest.get("data", {}).get("train", {}).get("domains")
    return [name for name, one in held.items() if one["rows"]] if held else None


def folder_name(data: Data, split: str) -> str:
    """``validation``, or the file's name with a stamp, so that no judgement overwrites another's."""
    if data is None:
        return split
    data = "-".join(data) if isinstance(data, Mapping) else data
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(storage.name(data)).stem).strip("-.") or "data"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def split_warnings(name: str, asked: str | None, data: Data) -> list[str]:
    """That a split was not held out; ``asked`` is the one that was asked for."""
    if name == "validation" and data is None:
        return [
            ("" if asked else "There is no test split. ")
            + "These are the validation rows, by which the checkpoint was chosen: expect a little less on new data."
        ]
    if name == "train" and data is None:
        return ["These are the training rows: the numbers say how well they were learned, not how good the model is."]
    return []


def _uneven(state: State, run: Run, data: Data) -> list[str]:
    """That the classes were very uneven in training, and nothing was done about it; in the run's own verdicts."""
    told = advice(state, run.recipe.training) if data is None else None
    return [told] if told else []


def _record(run: Run, found: Evaluation) -> None:
    """Note the verdict in the manifest and in the artefact."""
    run.update(durations={"evaluate": found.seconds})
    place = run.file("model")
    summary = {name: None if math.isnan(one.value) else one.value for name, one in found.metrics.items()}
    dataclasses.replace(Artefact.read(place), metrics=summary).write(place)
