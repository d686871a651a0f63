"""Fine-tune a pre-trained model on labelled data, judge it, and keep the record.

:func:`train` is the whole story, top to bottom: prepare the data, start or join Ray, run ``fit`` on every worker, bring home
the best checkpoint, judge it, write the report. The loop itself is ``tunesmith/training/fit.py``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith.errors import UserError
from tunesmith.verbs.options import on_option, run_options
from tunesmith.verbs.recording import Listener, record_data, record_prepared, timed
from tunesmith.verbs.standing import asked_for, is_trained, log_file, record_for, standing

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.data.old import OldPlaces
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task
    from tunesmith.training.launch import Trained
    from tunesmith.training.progress import Progress


def train(
    recipe: Recipe | str,
    overrides: Sequence[str] = (),
    *,
    on: str | None = None,
    run: str | None = None,
    force: bool = False,
    resume: bool = True,
    command: Sequence[str] | None = None,
) -> Run:
    """Fine-tune as the recipe says; returns the finished run.

    An unfinished run of the same recipe is gone on with, from its last checkpoint.

    Args:
        recipe: a recipe, or the path of one.
        overrides: ``training.learning_rate=3e-5``, for a path.
        on: the Ray cluster to join, ``HOST:PORT``; None starts one on this machine, or joins ``RAY_ADDRESS``.
        run: the run's folder, instead of a new one.
        force: start ``run`` over where it belongs to another recipe.
        resume: False begins a new run even where one is unfinished.
        command: what the record calls the command; None is this process's.

    Raises:
        UserError: something that the user can mend; nothing is lost.
        TrainingFailed: workers failed more often than ``training.max_failures``.
    """
    from tunesmith.tasks import load_task
    from tunesmith.training.precheck import check_prepared
    from tunesmith.training.progress import Progress
    from tunesmith.verbs import console

    recipe = asked_for(recipe, overrides)
    if recipe.data.few_shot.seeds > 1:
        raise UserError("data.few_shot.seeds: a run is one training\n    → Call tunesmith.repeat, or set it to 1")
    task = load_task(recipe.task)
    with Progress(console.err()) as progress:
        if force and recipe.data.engine != "ray":
            # A mistake must not cost the run that is to be started over.
            checked = _prepare(recipe, task, progress, "Checking the data")
            check_prepared(recipe, task, checked, progress.prepared)
        record, new = record_for(recipe, run, force, resume, command)
        if not (new or force):
            console.err().print(f"Going on with {record.path}", markup=False)
        _finish(recipe, task, record, new, on, progress)
    return record


def _finish(recipe: Recipe, task: Task, run: Run, new: bool, on: str | None, progress: Progress) -> None:
    """Everything that the run lacks still: the training, its model, the verdict."""
    from tunesmith.verbs.evaluate import evaluate

    with standing(run, new):
        if not is_trained(run):
            keep_model(recipe, task, run, fine_tune(recipe, task, run, on, progress), progress)
        # Judged where it was trained if that was on GPUs: this process, on a cluster's head, may have none.
        there = on if run.manifest.get("trained_on") == "GPU" else None
        evaluate(run, on=there, progress=progress)


@dataclass(frozen=True)
class Session:
    """What training rested on, and what it left."""

    labelled: PreparedData
    prepared: PreparedData
    """What was trained on: the labelled data, and behind its training rows those that a teacher labelled."""
    old: OldPlaces
    trained: Trained | None
    """None where a teacher was sure of no row, so that there was nothing more to train on."""


def fine_tune(recipe: Recipe, task: Task, run: Run, on: str | None, progress: Progress) -> Session:
    """Prepare the data, then train on Ray; of self-training, the teacher first."""
    from tunesmith.cluster.connect import connect
    from tunesmith.cluster.preflight import detect_gpus, preflight
    from tunesmith.data.old import prepare_old
    from tunesmith.data.unlabelled import prepare_unlabelled
    from tunesmith.training.launch import demand, launch
    from tunesmith.training.precheck import check_training
    from tunesmith.training.self_training import check_apart, student_data

    begun = time.perf_counter()
    with ExitStack() as stack:
        if _needs_ray_first(recipe, on):
            progress.phase("Joining the cluster" if on else "Starting Ray")
            stack.enter_context(connect(on, log_file=log_file(run)))
        prepared = labelled = _prepare(recipe, task, progress)
        old = prepare_old(recipe, task, prepared, progress.prepared)
        check_training(recipe, task, prepared, old)
        unlabelled = prepare_unlabelled(recipe, task, labelled, progress.prepared)
        if unlabelled is not None:
            check_apart(task, unlabelled, old)
        record_prepared(recipe, task, run, prepared, old)
        run.update(durations={"prepare": round(time.perf_counter() - begun, 1)})
        if not _needs_ray_first(recipe, on):
            progress.phase("Starting Ray")
            stack.enter_context(connect(None, log_file=log_file(run)))
        resources = demand(recipe, detect_gpus())
        run.update(trained_on="GPU" if "GPU" in resources else "CPU")
        preflight(recipe.training.num_workers, resources, storage=recipe.training.output_dir)
        if unlabelled is not None:
            _teach(recipe, task, run, progress)
            made = student_data(recipe, task, run, labelled, unlabelled, progress.prepared)
            if made is None:
                return Session(labelled, labelled, old, None)
            prepared = made
            record_data(run, prepared, unlabelled)
        progress.phase(f"Starting {recipe.training.num_workers} worker{'s' * (recipe.training.num_workers > 1)}")
        listener = stack.enter_context(Listener(recipe, run, progress))
        chosen_by = recipe.training.metric_for_best_model or task.metric
        with timed(run, "train"):
            trained = launch(recipe, prepared.path, run, resources, listener.hear, old)
        best = {"step": trained.step, "metric": chosen_by, "value": trained.metrics.get(chosen_by)}
        run.update(steps=listener.step, best=best)
    return Session(labelled, prepared, old, trained)


def _teach(recipe: Recipe, task: Task, run: Run, progress: Progress) -> None:
    """The teacher of a student: a run in the run's folder, trained by the same recipe, gone on with where it is unfinished."""
    from tunesmith import storage
    from tunesmith.runs import Run as RunClass
    from tunesmith.runs.run import TEACHER
    from tunesmith.training.self_training import teacher_recipe

    alone, place = teacher_recipe(recipe), run.file(TEACHER)
    new = not storage.exists(storage.join(place, "manifest.json"))
    if new and storage.exists(place):
        storage.delete(place)  # what a crash left before the first file that makes a folder a run
    teacher = RunClass.create(alone, run.manifest.get("command") or [], place) if new else RunClass.open(place)
    if teacher.status != "done":
        progress.phase("Training the teacher")
        _finish(alone, task, teacher, new, None, progress)
        progress.phase("Asking the teacher")


def _needs_ray_first(recipe: Recipe, on: str | None) -> bool:
    """Whether Ray must be there before the data is prepared; else bad data shows before Ray starts."""
    return bool(on) or recipe.data.engine == "ray"


def _prepare(recipe: Recipe, task: Task, progress: Progress, phase: str = "Preparing data") -> PreparedData:
    from tunesmith.data.prepare import prepare

    progress.phase(phase)
    return prepare(recipe, task, output_dir=recipe.training.output_dir, progress=progress.prepared)


def keep_model(recipe: Recipe, task: Task, run: Run, made: Session, progress: Progress) -> None:
    """The chosen checkpoint's model becomes the run's, with its lineage.

    Of a self-training it does where it is better than its teacher; else the teacher's model does.
    """
    import tempfile

    from tunesmith import storage
    from tunesmith.evaluation.retention import beyond_ceiling
    from tunesmith.report import retention
    from tunesmith.training.finish import finish, finished_predictor
    from tunesmith.training.self_training import decide, keep_teacher
    from tunesmith.verbs.publishing import publish, record_base

    if made.trained is None:
        decide(recipe, run, None, made.labelled)
        keep_teacher(run)
        return
    record_base(recipe, run)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "model")
        storage.download(storage.join(made.trained.checkpoint, "model"), local)
        finished = finish(recipe, task, made.prepared, made.old, local, made.trained.metrics)
        if recipe.data.unlabelled.data is not None:
            student = finished_predictor(recipe, task, made.prepared, local, finished)
            lost = beyond_ceiling(run, finished.records.get("wise_ft")) is not None
            if not decide(recipe, run, student, made.labelled, beyond=lost):
                record_data(run, made.labelled)
                keep_teacher(run)
                return
        publish(task, run, made.prepared.state, local, finished)
    if beyond := beyond_ceiling(run):
        run.update(beyond_ceiling=beyond)
        progress.handle({"kind": "note", "message": retention.ceiling(run)})


@click.command("train")
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@run_options
@on_option
def command(recipe: str, overrides: tuple[str, ...], folder: str | None, force: bool, new: bool, on: str | None) -> None:
    """Fine-tune as RECIPE says, judge the model, write the report.

    OVERRIDES are dotted: training.learning_rate=3e-5. Run it again after a crash or Ctrl-C, and it goes on where it stopped.
    """
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.recipe import Recipe as RecipeClass
    from tunesmith.verbs import console
    from tunesmith.verbs.compare_recipes import print_comparison
    from tunesmith.verbs.evaluate import print_verdict
    from tunesmith.verbs.repeat import repeat

    loaded = RecipeClass.load(recipe, overrides)
    if loaded.data.few_shot.seeds > 1:
        found = repeat(loaded, seeds=loaded.data.few_shot.seeds, folder=folder, on=on, force=force, resume=not new)
        print_comparison(found, console.out())
        return
    run = train(recipe, overrides, on=on, run=folder, force=force, resume=not new)
    print_verdict(Evaluation.from_json(run.verdict), run, console.out())


__all__ = ["command", "train"]
