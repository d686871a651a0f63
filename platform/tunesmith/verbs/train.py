"""Fine-tune a pre-trained model on labelled data, judge it, and keep the record.

:func:`train` is the whole story, top to bottom: prepare the data, start or join Ray, run ``fit`` on every worker, bring home
the best checkpoint, judge it, write the report. The loop itself is ``tunesmith/training/fit.py``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import click

from tunesmith.errors import RunError, UserError
from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.data.old import OldPlaces
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task
    from tunesmith.training.launch import Trained
    from tunesmith.training.progress import Progress
    from tunesmith.training.trackers import Tracker


COUNTED = 3
"""Epochs whose draws are counted by domain; each has the same composition where domains have weights."""


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
    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe as RecipeClass
    from tunesmith.tasks import load_task
    from tunesmith.training.progress import Progress
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import evaluate

    if not isinstance(recipe, RecipeClass):
        recipe = RecipeClass.load(recipe, overrides)
    recipe = recipe.resolved()
    if recipe.data.few_shot.seeds > 1:
        raise UserError("data.few_shot.seeds: a run is one training\n    → Call tunesmith.repeat, or set it to 1")
    task = load_task(recipe.task)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(console.err()))
        if force and recipe.data.engine != "ray":
            # A mistake in the data must not cost the run that is to be started over.
            _check_objective(recipe, task, _prepare(recipe, task, progress, "Checking the data"))
        record, new = _record(recipe, run, force, resume, command or [Path(sys.argv[0]).name, *sys.argv[1:]])
        if not (new or force):
            console.err().print(f"Going on with {record.path}")
        stack.enter_context(_standing(record, new))
        if not _is_trained(record):
            prepared, old, trained = _fine_tune(recipe, task, record, on, progress)
            _keep_model(recipe, task, prepared, old, record, trained)
        progress.phase("Judging the model")
        evaluate(record, prepared=PreparedData.open(record.manifest["prepared"]), progress=progress.prepared)
    return record


def _record(recipe: Recipe, folder: str | None, force: bool, resume: bool, command: Sequence[str]) -> tuple[Run, bool]:
    """The run to write to: the one named, an unfinished one of the same recipe, or a new one; and whether it is new."""
    from tunesmith import storage
    from tunesmith.runs import Run, find_resumable

    if folder is not None and storage.exists(storage.join(folder, "manifest.json")):
        run = Run.open(folder)
        if force:
            run.start_over(recipe, command)
        run.check_recipe(recipe)
        if run.status == "done":
            raise RunError(
                f"{folder} is a finished run of this recipe\n    → Name another folder, or add --force to train it again"
            )
        return run, False
    if folder is None and resume and (unfinished := find_resumable(recipe)) is not None:
        return unfinished, False
    return Run.create(recipe, command, folder), True


@contextmanager
def _standing(run: Run, new: bool) -> Iterator[None]:
    """Locks the run and keeps its status true, however the block ends; an interruption is told how to go on.

    A new run that a user's mistake ended before its first update leaves nothing behind.
    """
    kept = True
    with run.lock():
        run.set_status("running")
        try:
            yield
        except BaseException as error:
            kept = not (new and isinstance(error, UserError)) or bool(run.history)
            if kept:
                run.set_status(outcome(type(error)))
            if outcome(type(error)) == "interrupted":
                error.add_note(f"The same command goes on with {run.path}")
            raise
        else:
            run.set_status("done")
        finally:
            if not kept:
                run.remove()


def outcome(kind: type[BaseException] | None) -> Literal["done", "interrupted", "failed"]:
    """How a run that ended with this exception stands."""
    if kind is None:
        return "done"
    return "interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed"


def _is_trained(run: Run) -> bool:
    """Whether the run has its model already, so that only the verdict is missing."""
    from tunesmith import storage

    return storage.exists(storage.join(run.file("model"), "tunesmith.json"))


def _fine_tune(
    recipe: Recipe, task: Task, run: Run, on: str | None, progress: Progress
) -> tuple[PreparedData, OldPlaces, Trained]:
    """Prepare the data, then train on Ray."""
    from tunesmith.cluster.connect import connect
    from tunesmith.cluster.preflight import detect_gpus, preflight
    from tunesmith.data.old import prepare_old
    from tunesmith.training.launch import demand, launch

    begun = time.perf_counter()
    with ExitStack() as stack:
        if _needs_ray_first(recipe, on):
            progress.phase("Joining the cluster" if on else "Starting Ray")
            stack.enter_context(connect(on, log_file=_log_file(run)))
        prepared = _prepare(recipe, task, progress)
        _check_objective(recipe, task, prepared)
        _record_data(run, prepared)
        old = prepare_old(recipe, task, prepared, progress.prepared)
        run.update(old_data=old.to_json())
        _say_care(prepared)
        _record_domains(recipe, task, run, prepared)
        _record_augmented(recipe, task, run, prepared)
        run.update(durations={"prepare": round(time.perf_counter() - begun, 1)})
        if not _needs_ray_first(recipe, on):
            progress.phase("Starting Ray")
            stack.enter_context(connect(None, log_file=_log_file(run)))
        resources = demand(recipe, detect_gpus())
        preflight(recipe.training.num_workers, resources, storage=recipe.training.output_dir)
        progress.phase(f"Starting {recipe.training.num_workers} worker{'s' * (recipe.training.num_workers > 1)}")
        listener = stack.enter_context(_Listener(recipe, run, progress))
        chosen_by = recipe.training.metric_for_best_model or task.metric
        with _timed(run, "train"):
            trained = launch(recipe, prepared.path, run, resources, listener.hear, old)
        best = {"step": trained.step, "metric": chosen_by, "value": trained.metrics.get(chosen_by)}
        run.update(steps=listener.step, best=best)
    return prepared, old, trained


@contextmanager
def _timed(run: Run, what: str) -> Iterator[None]:
    """Adds the seconds that the block took, however it ends, to those of earlier sessions in the record."""
    begun, before = time.perf_counter(), run.manifest.get("durations", {}).get(what, 0.0)
    try:
        yield
    finally:
        run.update(durations={what: round(before + time.perf_counter() - begun, 1)})


def _needs_ray_first(recipe: Recipe, on: str | None) -> bool:
    """Whether Ray must be there before the data is prepared; else bad data shows before Ray starts."""
    return bool(on) or recipe.data.engine == "ray"


def _prepare(recipe: Recipe, task: Task, progress: Progress, phase: str = "Preparing data") -> PreparedData:
    from tunesmith.data.prepare import prepare

    progress.phase(phase)
    return prepare(recipe, task, output_dir=recipe.training.output_dir, progress=progress.prepared)


def _check_objective(recipe: Recipe, task: Task, prepared: PreparedData) -> None:
    """A loss, weights or sampling that these classes cannot have. Raises :class:`UserError`, before Ray and workers start."""
    from tunesmith.tasks.losses import check_criterion
    from tunesmith.training.sampling import check_sampling

    check_criterion(recipe, prepared.state)
    train = prepared.splits["train"]
    check_sampling(recipe, task, train, prepared.state, train.domains)


class _Listener:
    """Writes what the workers tell into the run's history, the trackers, and the progress view."""

    def __init__(self, recipe: Recipe, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.step = 0
        self._lost = self._started = False
        self._judged: list[dict[str, Any]] = []
        self._overfits = False
        self._restarts = 0
        self._recipe = recipe
        self._tracker: Tracker | None = None

    def __enter__(self) -> Self:
        from tunesmith.runs.compare import flattened
        from tunesmith.training.trackers import open_trackers

        params = dict(flattened(self._recipe.model_dump(mode="json")))
        self._tracker = open_trackers(self._recipe.training.report_to, self.run.name, self.run.path, params)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.run.flush()
        if self._tracker is not None:
            self._tracker.close(outcome(kind))

    def hear(self, event: dict[str, Any]) -> None:
        """Take one event."""
        kind = event["kind"]
        if kind == "died" or (kind == "start" and self._started):
            self._say_lost()
        if kind == "start":
            self._started, self._lost = True, False
            self.run.truncate_history(event["step"])  # what was logged beyond the checkpoint is done again
            self._judged = [line for line in self._judged if line["step"] <= event["step"]]
        if kind == "trained":
            self.run.update(trained={name: value for name, value in event.items() if name not in ("kind", "message")})
        if kind in ("start", "step", "eval"):
            self.step = max(self.step, event["step"])
        if kind == "done" and event.get("stopped_by"):
            self.run.update(stopped_by=event["stopped_by"])
        if kind in ("step", "eval", "retention"):
            line = {name: value for name, value in event.items() if name not in ("kind", "steps", "best_step")}
            self.run.log_metrics(line)
            if self._tracker is not None:
                split = line.pop("split")
                numbers = {f"{split}/{k}": v for k, v in line.items() if k != "step" and isinstance(v, int | float)}
                self._tracker.log(numbers, event["step"])
        self.progress.handle(event)
        if kind == "eval":
            self._say_overfitting(event)

    def _say_overfitting(self, event: dict[str, Any]) -> None:
        """Once, at the evaluation that shows it."""
        from tunesmith.training.overfitting import overfitting

        self._judged.append(event)
        found = overfitting(self._judged)
        if found is not None and not self._overfits:
            self._overfits = True
            self.progress.handle({"kind": "note", "message": found.sentence()})

    def _say_lost(self) -> None:
        """Once for each restart, whoever notices first."""
        if self._lost:
            return
        self._lost, self._restarts = True, self._restarts + 1
        if 0 <= self._recipe.training.max_failures < self._restarts:
            self.progress.phase("A worker died")
        else:
            self.progress.handle({"kind": "restart", "message": "A worker died; training goes on from its last checkpoint"})


def _record_data(run: Run, prepared: PreparedData) -> None:
    """What was prepared goes into the run's record: hashes, counts, problems, and the rows that were set aside."""
    from tunesmith import storage

    splits = {
        name: {key: split[key] for key in ("rows", "hash", "source", "source_hash", "labels", "domains") if key in split}
        for name, split in prepared.manifest["splits"].items()
    }
    run.update(data=splits, split_hash=prepared.manifest["split_hash"], prepared=prepared.path)
    storage.write_json(run.file("data/report.json"), {k: v for k, v in prepared.manifest.items() if k != "state"})
    if prepared.quarantine is not None:
        storage.write_bytes(run.file("data/quarantine.jsonl"), prepared.quarantine.read_bytes())


def _say_care(prepared: PreparedData) -> None:
    """What data care found, in a line or two."""
    from tunesmith.report.care import summary
    from tunesmith.verbs import console

    for line in summary(prepared.manifest.get("care", {})):
        console.err().print(line, markup=False)


def _record_domains(recipe: Recipe, task: Task, run: Run, prepared: PreparedData) -> None:
    """What the domains' weights ask for and what an epoch draws of each, counted; in the record and in a line."""
    from tunesmith.recipe.data import weights_of
    from tunesmith.report.domains import composition_line
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.sampling import drawn_by_domain, make_sampler
    from tunesmith.training.spec import FitSpec
    from tunesmith.verbs import console

    train = prepared.splits["train"]
    if train.domains is None:
        return
    sampler = make_sampler(FitSpec(recipe, task, Preprocessing(prepared.state)), train, train.domains)
    drawn = drawn_by_domain(sampler, train.domains, epochs=COUNTED)
    rows, weights = train.domains.counts(), weights_of(recipe.data.train)
    composition = {"rows": rows, "weights": weights, "drawn": drawn, "epoch": len(train)}
    run.update(domains=composition)
    console.err().print(composition_line(composition), markup=False)


def _record_augmented(recipe: Recipe, task: Task, run: Run, prepared: PreparedData) -> None:
    """What augmentation makes of a few training examples, for the report; what does not fit is told before Ray starts."""
    from tunesmith import storage
    from tunesmith.tasks.augment import SAMPLES
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.augmentation import samples
    from tunesmith.training.spec import FitSpec

    if recipe.data.augment:
        spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))
        storage.write_json(run.file(SAMPLES), samples(spec, prepared.splits["train"]))


def _keep_model(recipe: Recipe, task: Task, prepared: PreparedData, old: OldPlaces, run: Run, trained: Trained) -> None:
    """The chosen checkpoint's model becomes the run's, with its lineage; ``tunesmith.json`` last: it says that all is there."""
    import tempfile

    from tunesmith import __version__, storage
    from tunesmith.runs import Artefact
    from tunesmith.runs.artefact import base_model_record
    from tunesmith.tasks import hub
    from tunesmith.training.finish import finish

    base = base_model_record(hub.model_source(recipe), recipe.model.revision)
    run.update(base_model={**base, "name_or_path": recipe.model.model_name_or_path})
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "model")
        storage.download(storage.join(trained.checkpoint, "model"), local)
        finished = finish(recipe, task, prepared, old, local, trained.metrics)
        (local / "tunesmith.json").unlink(missing_ok=True)
        storage.upload(local, run.file("model"))
    run.update(**finished.records)
    artefact = Artefact(
        task=task.name,
        state=prepared.state,
        base_model=run.manifest["base_model"],
        run=run.name,
        metrics=finished.metrics,
        tunesmith=__version__,
        calibration=finished.records.get("calibration"),
    )
    artefact.write(run.file("model"))


def _log_file(run: Run) -> str | None:
    """Where Ray's and the workers' chatter goes; a remote run keeps it in Ray's own logs only."""
    from tunesmith import storage

    return str(storage.local_path(run.file("train.log"))) if storage.is_local(run.path) else None


@click.command("train")
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@click.option("--run", "folder", metavar="DIR", help="The run's folder: a new one, or one to go on with.")
@click.option("--force", is_flag=True, help="Start --run DIR over, also where it belongs to another recipe.")
@click.option("--new", is_flag=True, help="Begin a new run even where one of this recipe is unfinished.")
@on_option
def command(recipe: str, overrides: tuple[str, ...], folder: str | None, force: bool, new: bool, on: str | None) -> None:
    """Fine-tune as RECIPE says, judge the model, write the report.

    OVERRIDES are dotted: training.learning_rate=3e-5. Run it again after a crash or Ctrl-C, and it goes on where it stopped.
    """
    if force and folder is None:
        raise UserError("--force goes with --run DIR, the run to start over")
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.recipe import Recipe as RecipeClass
    from tunesmith.verbs import console
    from tunesmith.verbs.compare_recipes import print_comparison, repeat
    from tunesmith.verbs.evaluate import print_verdict

    loaded = RecipeClass.load(recipe, overrides)
    if loaded.data.few_shot.seeds > 1:
        found = repeat(loaded, seeds=loaded.data.few_shot.seeds, folder=folder, on=on)
        print_comparison(found, console.out())
        return
    run = train(recipe, overrides, on=on, run=folder, force=force, resume=not new)
    print_verdict(Evaluation.from_json(run.verdict), run, console.out())


__all__ = ["command", "train"]
