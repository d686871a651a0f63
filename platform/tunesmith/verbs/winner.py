"""The winner of a search: which trial it is, and how its model, or a training anew, becomes the run's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.errors import TrainingFailed, UserError
from tunesmith.verbs.recording import record_prepared

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task
    from tunesmith.training.progress import Progress
    from tunesmith.tuning.ground import Ground
    from tunesmith.tuning.search import Search
    from tunesmith.tuning.trials import Report, Trial


def choose(search: Search) -> Trial:
    """The trial that is kept. Raises :class:`UserError` where none was judged."""
    from tunesmith.tuning.front import winner

    found = winner(search.settings, search.candidates())
    if found is not None:
        return found
    if search.failed():
        raise search.why_failed()
    ended = f": {search.ended_by}" if search.ended_by else ""
    raise UserError(
        f"the search ended before any trial was judged{ended}\n    → Raise search.time_budget_s or search.cost_budget_s "
        "(--time of tunesmith auto), or judge earlier: training.eval_strategy: steps, training.eval_steps: 10"
    )


def winning_recipe(recipe: Recipe, search: Search, winner: Trial, *, overridden: bool = True) -> Recipe:
    """The searched recipe with the winner's values; ``overridden``: also with ``search.trial_overrides``."""
    from tunesmith.recipe.searched import trial_recipe

    return trial_recipe(recipe, search.space, winner.values, overridden=overridden)


def keep_winner(
    recipe: Recipe, task: Task, run: Run, ground: Ground, search: Search, winner: Trial, progress: Progress
) -> None:
    """The winner's values become the run's recipe, and its best checkpoint, or a training anew, the run's model."""
    from tunesmith.training.launch import Trained
    from tunesmith.tuning import checkpoints
    from tunesmith.verbs.train import Session, fine_tune, keep_model

    refit = recipe.search.winner == "refit"
    chosen = winning_recipe(recipe, search, winner, overridden=not refit)
    run.adopt(chosen)
    if refit:
        progress.phase("Training the winner's values anew")
        keep_model(chosen, task, run, fine_tune(chosen, task, run, None, progress), progress)
        return
    prepared, old = ground.data(chosen)
    record_prepared(chosen, task, run, prepared, old)
    place, best = _best(run, winner)
    _take_over(run, search, winner, best, ground.metric)
    progress.phase("Gathering the model")
    trained = Trained(place, best.step, dict(best.metrics))
    keep_model(chosen, task, run, Session(prepared, prepared, old, trained), progress)
    if recipe.search.scheduler == "pbt":
        for trial in search.trials:
            if trial.number != winner.number:
                checkpoints.drop(run.path, trial)


def _best(run: Run, winner: Trial) -> tuple[str, Report]:
    """The winner's best checkpoint and its evaluation. Raises :class:`TrainingFailed` where it is gone."""
    from tunesmith.tuning.checkpoints import best_of

    found = best_of(run.path, winner)
    if found is None:
        raise TrainingFailed(f"the checkpoints of trial {winner.number} are gone from {run.path}")
    return found


def _take_over(run: Run, search: Search, winner: Trial, report: Report, metric: str) -> None:
    """The winner's curves, and those it goes back to, become the run's."""
    from tunesmith import storage
    from tunesmith.runs.history import History
    from tunesmith.tuning.record import history
    from tunesmith.tuning.trials import EVENTS, folder_of, lineage

    line = lineage(search.trials, winner.number)
    run.truncate_history(-1)
    told = [one for trial in line for one in History(storage.join(folder_of(run.path, trial.number), EVENTS)).read()]
    for one in history(told):
        run.log_metrics(one)
    run.flush()
    best = {"step": report.step, "metric": metric, "value": report.metrics.get(metric)}
    run.update(steps=winner.done_steps, best=best, durations={"train": round(sum(trial.fit_seconds for trial in line), 1)})
