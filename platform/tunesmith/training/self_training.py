"""Self-training: the teacher's labels become training rows of the student, and validation decides which of the two is kept.

Teacher and student are trained alike, from the same base, by the same recipe; they differ in the training rows alone.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith import storage
from tunesmith.data.inputs_only import SPLIT
from tunesmith.data.old import OldPlaces, refuse_shared
from tunesmith.data.unlabelled import truth_of, with_pseudo_labels
from tunesmith.errors import DataError
from tunesmith.evaluation.judges import records_of
from tunesmith.evaluation.predictions import read_predictions
from tunesmith.evaluation.predictor import Predictor
from tunesmith.evaluation.pseudo_labels import PseudoLabels, account, pseudo_labels
from tunesmith.evaluation.results import plain
from tunesmith.evaluation.retention import judged
from tunesmith.evaluation.statistics import Bootstrap, difference
from tunesmith.recipe.unlabelled import UnlabelledSection
from tunesmith.runs.artefact import FILE, Artefact
from tunesmith.runs.run import HISTORY, TEACHER
from tunesmith.tasks.labels import label_name
from tunesmith.tasks.metrics import greater_is_better

if TYPE_CHECKING:
    from tunesmith.data.prepared import PreparedData, Split
    from tunesmith.evaluation.predictions import Progress
    from tunesmith.recipe import Recipe
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task

RECORD, LABELS = "unlabelled/report.json", "unlabelled/labels.parquet"
"""What a run keeps of its self-training: the numbers, and what was said of each row."""

STUDENT_HISTORY = "unlabelled/student-metrics.jsonl"
"""The learning curves of a student that was not kept."""

BEYOND = "beyond_ceiling"
"""Where the manifest says that the kept model is beyond the retention ceiling."""


def teacher_recipe(recipe: Recipe) -> Recipe:
    """The same recipe without the unlabelled rows; with them and one round fewer where there are several."""
    section = recipe.data.unlabelled
    fewer = section.model_copy(update={"rounds": section.rounds - 1}) if section.rounds > 1 else UnlabelledSection()
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"unlabelled": fewer})})


def check_apart(task: Task, unlabelled: PreparedData, old: OldPlaces) -> None:
    """Raises :class:`DataError` where unlabelled rows stand in a retention set: they may be trained on."""
    why = "rows that are trained on tell nothing of what was forgotten"
    for name, place in old.retention.items():
        refuse_shared(task, "data.unlabelled.data", unlabelled.splits[SPLIT], f"the retention set {name}", place.open(), why)


def student_data(
    recipe: Recipe, task: Task, run: Run, labelled: PreparedData, unlabelled: PreparedData, tell: Progress
) -> PreparedData | None:
    """The data of the student: the labelled rows and those that the teacher in the run's folder is sure of.

    None where it is sure of none. What was said of each row, and the numbers, are written into the run.
    """
    if not storage.exists(run.file(LABELS)):  # a resumed student learns from the labels that it began with
        predictor, known = Predictor.load(_teacher(run).local_model()), labelled.state["labels"]
        made = pseudo_labels(predictor, labelled, unlabelled, recipe.data.unlabelled, tell)
        storage.write_json(run.file(RECORD), account(made, unlabelled, known))
        _write_labels(run, unlabelled, made, known)
    said = read_predictions(run.file(LABELS))
    if not said["id"].combine_chunks().equals(unlabelled.splits[SPLIT].ids):
        raise DataError(
            f"data.unlabelled: the rows are others than those that the teacher labelled for {run.path}"
            "\n    → Give the rows of then, or begin a new run: --new, or --force with --run."
        )
    chosen = np.flatnonzero(said["taken"].to_numpy(zero_copy_only=False))
    if not len(chosen):
        return None
    return with_pseudo_labels(recipe, task, labelled, unlabelled, chosen, said["label"].take(pa.array(chosen)).to_pylist())


def _teacher(run: Run) -> Run:
    from tunesmith.runs import Run as RunClass

    return RunClass.open(run.file(TEACHER))


def _write_labels(run: Run, unlabelled: PreparedData, made: PseudoLabels, known: list[str]) -> None:
    """One line for each row: its id, label, confidence, whether it was taken, and the label that it had all the same."""
    truth = truth_of(unlabelled)
    table = pa.table(
        {
            "id": unlabelled.splits[SPLIT].ids,
            "label": pa.array([known[code] for code in made.codes], pa.string()),
            "confidence": made.confidence,
            "taken": made.taken,
            "truth": pa.array([label_name(value) for value in truth] if truth else [None] * len(made.codes), pa.string()),
        }
    )
    with storage.writing(run.file(LABELS)) as stream:
        pq.write_table(table, stream, compression="zstd")


def decide(recipe: Recipe, run: Run, student: Predictor | None, labelled: PreparedData, *, beyond: bool = False) -> bool:
    """Whether the student is to be the run's model: it is better on the validation rows, or alone within the retention ceiling
    (``beyond`` says that the student is not within it).

    Better is a greater value of the metric that chooses checkpoints (a smaller one of a loss); of equals the teacher stays. The
    test rows, judged beside, have no part in it. Both judgements go into the run's record. Without a student the teacher stays.
    """
    record = storage.read_json(run.file(RECORD))
    if student is None:
        highest = record["highest"]
        why = f"no row reached the threshold of {recipe.data.unlabelled.threshold:g}; the surest has {highest:.3f}"
        return _settle(run, record, kept=False, why=why)
    teacher = Predictor.load(_teacher(run).local_model())
    name = recipe.training.metric_for_best_model or student.task.metric
    gain = math.nan
    for split in ("validation", "test"):
        if split not in labelled.splits or not len(labelled.splits[split]):
            continue
        one, reference = (_judged(model, labelled.splits[split], recipe.evaluation) for model in (student, teacher))
        if split == "validation":
            name = name if name in one.values else student.task.metric
            gain = one.values[name] - reference.values[name]
        confidence = recipe.evaluation.confidence
        names = [key for key in one.values if key in reference.values and "/" not in key]
        record[split] = {
            "n": one.n,
            "teacher": {key: reference.estimate(key, confidence) for key in names},
            "student": {key: one.estimate(key, confidence) for key in names},
            "difference": {key: difference(one, reference, key, confidence) for key in names},
        }
    said = recipe.training.greater_is_better if name == recipe.training.metric_for_best_model else None
    better = gain > 0 if (greater_is_better(name) if said is None else said) else gain < 0
    record["metric"], record["beyond"] = name, None
    if beyond != (teacher_beyond := bool(_teacher(run).manifest.get(BEYOND))):
        better, record["beyond"] = teacher_beyond, "student" if beyond else "teacher"
    return _settle(run, record, kept=better, why="")


def _judged(model: Predictor, split: Split, settings: EvaluationSection) -> Bootstrap:
    return judged(records_of(model, split), model.task, model.preprocessing.state, split, settings)


def _settle(run: Run, record: dict[str, Any], *, kept: bool, why: str) -> bool:
    record = plain({**record, "kept": "student" if kept else "teacher", "why": why})
    storage.write_json(run.file(RECORD), record)
    run.update(self_training={key: record[key] for key in ("kept", "why", "rows", "taken", "temperature")})
    return kept


def keep_teacher(run: Run) -> None:
    """The teacher's model becomes the run's, with its curves and records; ``tunesmith.json`` last: all is there then."""
    teacher = _teacher(run)
    run.flush()
    if storage.exists(run.file(HISTORY)) and not storage.exists(run.file(STUDENT_HISTORY)):
        storage.write_bytes(run.file(STUDENT_HISTORY), storage.read_bytes(run.file(HISTORY)))
    storage.write_bytes(run.file(HISTORY), storage.read_bytes(teacher.file(HISTORY)))
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "model")
        shutil.copytree(teacher.local_model(), local)
        artefact = dataclasses.replace(Artefact.read(local), run=run.name)
        (local / FILE).unlink()
        storage.upload(local, run.file("model"))
    said = {name: teacher.manifest.get(name) for name in ("base_model", "best", "steps", "wise_ft", "calibration", BEYOND)}
    run.update(**{name: value for name, value in said.items() if value is not None})
    artefact.write(run.file("model"))
