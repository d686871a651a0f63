"""Fine-tune across sites, judge the result, and keep the record: an ordinary run, to be served, tested and gated.

:func:`federate` is the whole story: find the sites (simulated here, or joined at a federation that is up), run the rounds, keep
the best model, judge it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import UserError
from tunesmith_federated.record import FOLDER, keep_rounds, record_of, tell_round

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import State, Task
    from tunesmith.training.progress import Progress
    from tunesmith_federated.server_state import Book

SUFFIX = "-federated"
"""Ends the name of a federated run, so that `tunesmith train` never takes it for one of its own."""

Tell = Callable[[Mapping[str, Any]], None]


def federate(
    recipe: Recipe | str,
    overrides: Sequence[str] = (),
    *,
    superlink: str | None = None,
    signature: str | None = None,
    on: str | None = None,
    run: str | None = None,
    force: bool = False,
    resume: bool = True,
    wait_s: float = 600.0,
    compare: bool = False,
    command: Sequence[str] | None = None,
) -> Run:
    """Fine-tune across sites as the recipe says; returns the finished run.

    An unfinished run of the same recipe is gone on with, from its last round.

    Args:
        recipe: a recipe, or the path of one.
        overrides: ``federation.sites=20``, for a path.
        superlink: the folder of a federation that is up, whose sites hold the data; None simulates the recipe's sites over its
            own ``data.train``.
        signature: the file of the recipe's signatures, for sites that allow by signer; None takes what lies beside the recipe.
        on: the Ray cluster that simulates; None starts one on this machine.
        run: the run's folder, instead of a new one.
        force: start ``run`` over where it belongs to another recipe.
        resume: False begins a new run even where one is unfinished.
        wait_s: seconds that real sites may take to join.
        compare: also train on all sites' rows together and on each site's alone (a simulation).
        command: what the record calls the command.

    Raises:
        UserError: something that the user can mend; nothing is lost.
        TrainingFailed: too few sites replied, several rounds in a row; the run can be gone on with.
    """
    from tunesmith.recipe import Recipe as RecipeClass
    from tunesmith.tasks import load_task
    from tunesmith.training.progress import Progress
    from tunesmith.verbs import console
    from tunesmith.verbs.standing import is_trained, record_for, standing
    from tunesmith_federated.deployment import signatures

    if not isinstance(recipe, RecipeClass):
        recipe = RecipeClass.load(recipe, overrides, check_paths=superlink is None)
    recipe = federated(recipe, deployed=superlink is not None)
    task = load_task(recipe.task)
    signed = [] if superlink is None else signatures.of(recipe, signature)
    with Progress(console.err()) as progress:
        record, new = record_for(recipe, run, force, resume, command)
        if not (new or force):
            _check_same(record, recipe)
            console.err().print(f"Going on with {record.path}")
        made = _Making(recipe, task, record, progress)
        with standing(record, new):
            if not is_trained(record):
                made.simulate(on, compare) if superlink is None else made.deploy(superlink, wait_s, signed)
            made.judge()
            if compare:
                made.compare(on)
    return record


def federated(recipe: Recipe, *, deployed: bool = False) -> Recipe:
    """The recipe as a federation follows it, under a name of its own; ``deployed``: across real sites.

    Raises :class:`UserError` for what needs data that the server has and sites have not, and for parameters in shards.
    """
    from tunesmith.recipe.data import weights_of

    if recipe.training.fsdp:  # a recipe without a federation section is free to set it
        raise UserError(
            "training.fsdp: sites and server exchange whole parameters, and fsdp shards them\n"
            "    → Leave it out for a federation"
        )
    data, training, retention = recipe.data, recipe.training, recipe.evaluation.retention
    several = isinstance(training.wise_ft, list) and len(training.wise_ft) > 1
    untested = deployed and training.wise_ft is not None and not several and data.test is None
    beyond = {
        "training.replay.data": training.replay.data is not None,
        "data.unlabelled.data": data.unlabelled.data is not None,
        "data.few_shot.seeds": data.few_shot.seeds > 1,
        "data.groups.columns": bool(data.groups.columns),
        "data.train (weights)": weights_of(data.train) is not None,
        "training.max_steps": training.max_steps > 0,
        "training.early_stopping_patience": training.early_stopping_patience is not None,
        "evaluation.retention.max_drop": retention.max_drop is not None,
        "evaluation.retention.choose": retention.choose,
        "evaluation.calibrate": deployed and recipe.evaluation.calibrate is not None,
        "training.wise_ft": untested or (deployed and several),
    }
    set_here = [key for key, is_set in beyond.items() if is_set]
    if set_here:
        raise UserError(
            f"{', '.join(set_here)}: not across sites, which have only their own rows and the rounds' length\n"
            f"    → Leave {'it' if len(set_here) == 1 else 'them'} out for a federation"
            f"{', or name data.test, which one share of training.wise_ft needs' if untested else ''}"
        )
    if not recipe.name.endswith(SUFFIX):
        recipe = recipe.override(f"name={recipe.name[: 80 - len(SUFFIX)]}{SUFFIX}", check_paths=False)
    return recipe.resolved()


def _check_same(run: Run, recipe: Recipe) -> None:
    if run.recipe.fingerprint("federation") != recipe.fingerprint("federation"):
        raise UserError(
            f"{run.path} is an unfinished run with another federation: section\n"
            "    → Add --new to begin another run, or go on with the run's own recipe.yaml"
        )


@dataclass(frozen=True)
class _Making:
    """One run in the making."""

    recipe: Recipe
    task: Task
    run: Run
    progress: Progress

    def simulate(self, on: str | None, compare: bool) -> None:
        """Deal the data out, and ask sites that are simulated on Ray."""
        from tunesmith.cluster.connect import connect
        from tunesmith.verbs.recording import record_data, say_care, timed
        from tunesmith.verbs.standing import log_file
        from tunesmith_federated.comparing import train_rivals
        from tunesmith_federated.rounds import Federation, Plan
        from tunesmith_federated.simulation.parts import dealt
        from tunesmith_federated.simulation.run import simulated

        prepared = self._prepared()
        record_data(self.run, prepared)
        say_care(prepared)
        parts = dealt(self.recipe, self.task, prepared)
        job = self._record(record_of(self.recipe, parts, self.run.manifest.get("federation")))
        with local_folder(self.run) as folder, timed(self.run, "train"):
            self.progress.phase("Joining the cluster" if on else "Starting Ray")
            with connect(on, log_file=log_file(self.run)):
                with simulated(self.recipe, prepared, parts, folder / "sites") as grid:
                    plan = Plan(job, self.recipe, self.task, folder, prepared.state)
                    book = Federation(plan, grid, self._tell).run()
                if compare:
                    train_rivals(self.recipe, prepared, parts, self.run, self.progress)
            self._keep(book, prepared.state, prepared)

    def deploy(self, federation: str, wait_s: float, signed: list[str]) -> None:
        """Ask real sites: the rounds run in the federation's own server, which is followed."""
        from tunesmith.verbs.recording import timed
        from tunesmith_federated.deployed import MOST_BYTES, follow
        from tunesmith_federated.deployment import signatures
        from tunesmith_federated.server_app import Job
        from tunesmith_federated.server_state import Book

        job = self.record_sites()
        signatures.keep(self.run.file("recipe.yaml"), signed)
        with local_folder(self.run) as folder, timed(self.run, "train"):
            self.progress.phase("Asking the federation")
            told = Job(job, self.run.file("recipe.yaml"), MOST_BYTES, wait_s, signed)
            state = follow(folder, str(Path(federation).expanduser().absolute()), told, self._tell)
            self._keep(Book(folder), state, self._tested(state))

    def judge(self) -> None:
        """By the server's own test rows where it has some, else by what the sites held back."""
        from tunesmith.verbs.evaluate import evaluate
        from tunesmith_federated.verdict import judge_by_sites

        if self.run.manifest.get("prepared") is None:
            judge_by_sites(self.run, self.task)
        else:
            evaluate(self.run, progress=self.progress)

    def compare(self, on: str | None) -> None:
        """Say how the federation does beside what was trained without one; train what an earlier call was not asked to."""
        from tunesmith.cluster.connect import connect
        from tunesmith.data import PreparedData
        from tunesmith.evaluation.results import Evaluation
        from tunesmith.report.html import write_report
        from tunesmith.verbs.standing import log_file
        from tunesmith_federated import comparing
        from tunesmith_federated.simulation.parts import dealt

        prepared = PreparedData.open(self.run.manifest["prepared"])
        parts = dealt(self.recipe, self.task, prepared)
        if not comparing.complete(parts, self.run):
            with connect(on, log_file=log_file(self.run)):
                comparing.train_rivals(self.recipe, prepared, parts, self.run, self.progress)
        comparing.record(self.recipe, self.task, prepared, parts, self.run)
        write_report(self.run, Evaluation.from_json(self.run.verdict))

    def record_sites(self) -> str:
        """Of real sites nothing is known yet, and the server has no rows so far; returns the job's id."""
        self.run.update(data={}, split_hash=None)
        return self._record(record_of(self.recipe, None, self.run.manifest.get("federation")))

    def _record(self, told: Mapping[str, Any]) -> str:
        """What is known of the federation, into the manifest; returns the job's id."""
        from tunesmith.verbs.publishing import record_base

        record_base(self.recipe, self.run)
        self.run.update(federation=told)
        return str(told["job"])

    def _tell(self, event: Mapping[str, Any]) -> None:
        tell_round(self.run, self.progress, event)

    def _keep(self, book: Book, state: State, prepared: PreparedData | None) -> None:
        """The best round's model, or the last, becomes the run's."""
        from tunesmith.data.old import OldPlaces
        from tunesmith.tasks.base import Preprocessing
        from tunesmith.training.checkpoint import save_model
        from tunesmith.training.finish import Finished, finish
        from tunesmith.verbs.publishing import publish
        from tunesmith_federated.models import Base, put

        self.progress.phase("Keeping the model")
        told = keep_rounds(self.run, book)
        model, adapters = Base(self.recipe, self.task, state).adapted()
        put(model, book.best() if told["chosen"] else book.tensors()[0])
        metrics = book.standing.judged.get(told["kept_round"], {})
        preprocessing = Preprocessing(state, self.task.load_processor(self.recipe))
        with tempfile.TemporaryDirectory() as place:
            local = Path(place, "model")
            save_model(local, model, self.task, preprocessing, model.state_dict(), adapters)
            finished = Finished(metrics)
            if prepared is not None:
                finished = finish(self.recipe, self.task, prepared, OldPlaces(), local, metrics)
            publish(self.task, self.run, state, local, finished)

    def _prepared(self) -> PreparedData:
        from tunesmith.data.prepare import prepare

        self.progress.phase("Preparing data")
        output_dir = self.recipe.training.output_dir
        return prepare(self.recipe, self.task, output_dir=output_dir, progress=self.progress.prepared)

    def _tested(self, state: State) -> PreparedData | None:
        """The server's own test rows, prepared with the state that the sites share; None where it has none."""
        from tunesmith.data.prepare import prepare_frozen
        from tunesmith.tasks.base import Preprocessing
        from tunesmith.verbs.recording import record_data

        if self.recipe.data.test is None:
            return None
        preprocessing = Preprocessing(state, self.task.load_processor(self.recipe))
        prepared = prepare_frozen(
            self.recipe,
            self.task,
            preprocessing,
            self.recipe.data.test,
            output_dir=self.recipe.training.output_dir,
            base_dir=self.recipe.base_dir,
            progress=self.progress.prepared,
        )
        record_data(self.run, prepared)
        return prepared


@contextmanager
def local_folder(run: Run) -> Iterator[Path]:
    """The folder of the rounds' state, on this machine: a run at a URI has it in the user's cache, by its job's id.

    Another run at a place of the same name (a bucket of another's, a run that was started over) must not go on from it.
    """
    import os

    from tunesmith import storage

    if storage.is_local(run.path):
        yield storage.local_path(run.file(FOLDER))
        return
    job = run.manifest["federation"]["job"]
    yield Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunesmith" / FOLDER / f"{run.name}-{job}"
