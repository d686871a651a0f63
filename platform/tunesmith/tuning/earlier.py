"""Results that a search begins with: of earlier searches, or of single runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith import storage
from tunesmith.errors import UserError
from tunesmith.recipe.search_space import Dimension
from tunesmith.recipe.searched import own_values
from tunesmith.runs import Run
from tunesmith.tuning.trials import LEDGER, Ledger, Report, Trial

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe


def earlier_trials(
    recipe: Recipe, space: Sequence[Dimension], metric: str, sign: int, tell: Callable[[str], None] = lambda line: None
) -> list[Trial]:
    """The trials of the runs that ``search.warm_start`` names, as far as their values are known.

    They only tell the search where good values are: none of them can win. ``tell`` is called with a line for each run that is
    left out. Raises :class:`UserError` where a run was chosen by another metric.
    """
    further = recipe.search.objectives[1:]
    found: list[Trial] = []
    for place in recipe.search.warm_start:
        run = Run.open(place)
        theirs = (run.manifest.get("search") or {}).get("metric") or (run.manifest.get("best") or {}).get("metric")
        if theirs != metric:
            raise UserError(
                f"search.warm_start: {place} was chosen by {theirs}, and this search goes by {metric}\n"
                f"    → Remove it, or set search.metric: {theirs}"
            )
        if storage.exists(run.file(LEDGER)):
            ended = [
                trial for trial in Ledger(run.path).read() if trial.status in ("done", "stopped") and trial.score is not None
            ]
            known = [trial for trial in ended if trial.origin != "seed" and trial.parent is None]
        else:
            known = [trial] if (trial := _single(run, space, sign)) is not None else []
        # Optuna learns nothing from a trial that lacks one of the objectives.
        whole = [trial for trial in known if all(trial.value(name) is not None for name in further)]
        if not whole:
            why = f"it does not say its {' and '.join(further)}" if known else "it does not say how good its best was"
            tell(f"{place} is left out of search.warm_start: {why}")
        found += whole
    return [replace(trial, number=-1 - index, origin="earlier") for index, trial in enumerate(found)]


def _single(run: Run, space: Sequence[Dimension], sign: int) -> Trial | None:
    """A single run as a trial; None where its record does not say how good its best checkpoint was."""
    best = run.manifest.get("best") or {}
    if best.get("value") is None:
        return None
    reports = (Report(int(best.get("step") or 1), sign * float(best["value"])),)
    return Trial(0, own_values(run.recipe, space), status="done", reports=reports)
