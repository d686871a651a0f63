"""Search the hyperparameters: many trainings, compared on the validation split; the best one becomes an ordinary run.

:func:`tune` is the whole story, top to bottom: prepare the data, run the trials on Ray Tune (:mod:`tunesmith.verbs.searching`),
choose the winner and keep its model, or train its values anew (:mod:`tunesmith.verbs.winner`), judge it once on the test split,
write the report. What is tried next, and which trials are stopped, is ``tunesmith/tuning/search.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from tunesmith.errors import UserError
from tunesmith.verbs.options import on_option, run_options
from tunesmith.verbs.recording import timed
from tunesmith.verbs.standing import asked_for, is_trained, log_file, record_for, standing

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task
    from tunesmith.tuning.ground import Ground


def tune(
    recipe: Recipe | str,
    overrides: Sequence[str] = (),
    *,
    on: str | None = None,
    run: str | None = None,
    force: bool = False,
    resume: bool = True,
    command: Sequence[str] | None = None,
) -> Run:
    """Search as the recipe's ``search`` section says; returns the winner's finished run.

    An unfinished search of the same recipe is gone on with: finished trials are not repeated.

    Args:
        recipe: a recipe, or the path of one.
        overrides: ``search.num_samples=50``, for a path.
        on: the Ray cluster to join, ``HOST:PORT``; None starts one on this machine, or joins ``RAY_ADDRESS``.
        run: the run's folder, instead of a new one.
        force: start ``run`` over where it belongs to another search.
        resume: False begins a new search even where one is unfinished.
        command: what the record calls the command; None is this process's.

    Raises:
        UserError: something that the user can mend; every trial failing is one, told with the first reason.
        TrainingFailed: Ray Tune failed.
    """
    from tunesmith.tasks import load_task
    from tunesmith.training.progress import Progress
    from tunesmith.tuning.ground import Ground
    from tunesmith.tuning.trials import Ledger
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import evaluate

    recipe = asked_for(recipe, overrides)
    if not recipe.search.space:
        raise UserError(
            "the recipe searches nothing\n    → Add search.space, such as {training.learning_rate: {loguniform: [1e-5, 1e-2]}}"
        )
    task = load_task(recipe.task)
    with Progress(console.err()) as progress:
        ground = Ground.prepare(recipe, task, progress)
    record, new = record_for(recipe, run, force, resume, command, search_by=ground.metric)
    if not (new or force):
        console.err().print(f"Going on with {record.path}", markup=False)
    with standing(record, new, worth=lambda: any(trial.score is not None for trial in Ledger(record.path).read())):
        if not is_trained(record):
            _search(recipe, task, record, ground, on)
        with Progress(console.err()) as progress:
            there = on if record.manifest.get("trained_on") == "GPU" else None
            evaluate(record, on=there, progress=progress)
    return record


def _search(recipe: Recipe, task: Task, run: Run, ground: Ground, on: str | None) -> None:
    """Run the trials, and make the winner the run's model."""
    from tunesmith.cluster.connect import connect
    from tunesmith.training.progress import Progress
    from tunesmith.tuning.record import write_record
    from tunesmith.verbs import console
    from tunesmith.verbs.search_words import outcome
    from tunesmith.verbs.searching import find_room, run_trials
    from tunesmith.verbs.winner import choose, keep_winner, winning_recipe

    with ExitStack() as stack:
        with Progress(console.err()) as progress:
            progress.phase("Joining the cluster" if on else "Starting Ray")
            stack.enter_context(connect(on, log_file=log_file(run)))
            room = find_room(recipe, ground.recipe)
        run.update(trained_on="GPU" if "GPU" in room.resources else "CPU")
        with timed(run, "search"):
            search = run_trials(recipe, run, ground, room)
        winner = choose(search)
        prepared, _ = ground.data(winning_recipe(recipe, search, winner))
        write_record(search, winner, ground.metric, ground.sign, len(prepared.splits["validation"]))
        for line in outcome(search, winner, ground):
            console.err().print(line, markup=False)
        with Progress(console.err()) as progress:
            keep_winner(recipe, task, run, ground, search, winner, progress)


@click.command("tune")
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@run_options
@on_option
def command(recipe: str, overrides: tuple[str, ...], folder: str | None, force: bool, new: bool, on: str | None) -> None:
    """Search the hyperparameters that RECIPE names under search, and keep the best model as a run.

    Trials are compared on the validation split; the test split is judged once, for the winner. Run it again after a crash or
    Ctrl-C, and it goes on where it stopped. OVERRIDES are dotted: search.num_samples=50.
    """
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import print_verdict

    run = tune(recipe, overrides, on=on, run=folder, force=force, resume=not new)
    print_verdict(Evaluation.from_json(run.verdict), run, console.out())


__all__ = ["command", "tune"]
