"""A search in words for the terminal: what it will do, and what came out of it. Needs neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.recipe.search import ALGORITHMS
from tunesmith.recipe.search_space import Dimension, combinations, count_combinations, parse

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tuning.ground import Ground
    from tunesmith.tuning.search import Search
    from tunesmith.tuning.trials import Trial

NAMED = 6
"""Keys that are named in a line, at most."""

COUNTED = 10_000
"""Spaces with more combinations are as good as endless."""


def plan(recipe: Recipe, concurrent: int | None = None) -> str:
    """What will be done, in a line; ``concurrent`` is how many trials run at a time, where that is known.

    >>> from tunesmith.recipe import Recipe
    >>> said = {"space": {"training.weight_decay": {"choice": [0, 0.1]}}, "algorithm": "grid", "scheduler": "none", "seeds": 3}
    >>> plan(Recipe.from_dict({"task": "text-classification", "model": {"model_name_or_path": "owner/base"},
    ...     "data": {"train": "hf://owner/data"}, "search": said}))
    '1 hyperparameter by grid: all 2 combinations, then the best with 2 other seeds, without a limit of time'
    """
    search, (space, _) = recipe.search, parse(recipe.search.space)
    how, points = ALGORITHMS[search.algorithm], grid_size(space)
    if search.scheduler == "pbt":
        how = "by population-based training"
        trials = f"{search.num_samples} trainings in {search.generations} generations"
    else:
        own = points is not None and _own_is_another(recipe, space)
        there = f"{points or 0:,} combinations" + (" and the recipe's own values" if own else "")
        if points is not None and points + own == planned(recipe) - (search.seeds - 1):
            trials = f"all {there}"
        else:
            of = f" of {there}" if points is not None else ""
            trials = f"at most {search.num_samples:,} trial{'s' * (search.num_samples > 1)}{of}"
    how += ", ASHA stops what lags behind" if search.scheduler == "asha" else ""
    parts = [trials, *([f"{concurrent} at a time"] if concurrent is not None else [])]
    if search.seeds > 1:
        parts.append(f"then the best with {search.seeds - 1} other seed{'s' * (search.seeds > 2)}")
    limits = [f"{search.time_budget_s:g} s"] if search.time_budget_s is not None else []
    limits += [f"{search.cost_budget_s:g} core- or GPU-seconds"] if search.cost_budget_s is not None else []
    parts.append(f"at most {' and '.join(limits)}" if limits else "without a limit of time")
    return f"{len(space)} hyperparameter{'s' * (len(space) != 1)} {how}: {', '.join(parts)}"


def searched_keys(recipe: Recipe) -> str:
    """The first of the searched keys, and how many more there are."""
    keys = [one.key for one in parse(recipe.search.space)[0]]
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def planned(recipe: Recipe) -> int:
    """How many trials there will be at most, where no budget ends the search before."""
    search, (space, _) = recipe.search, parse(recipe.search.space)
    again = search.seeds - 1
    if search.scheduler == "pbt":
        return search.num_samples * search.generations
    points = grid_size(space)
    if search.algorithm == "grid":
        return (points or 0) + again
    if points is None:
        return search.num_samples + again
    return min(search.num_samples, points + _own_is_another(recipe, space)) + again


def _own_is_another(recipe: Recipe, space: Sequence[Dimension]) -> bool:
    """Whether a trial has the recipe's own values, and these are no combination of the space."""
    from tunesmith.recipe.searched import own_values

    search = recipe.search
    begins = search.start_with_recipe and search.algorithm != "grid"
    return begins and own_values(recipe, space) not in list(combinations(space))


def grid_size(space: Sequence[Dimension]) -> int | None:
    """How many combinations of values there are; None where they are endless, or very many."""
    if any(one.all_values() is None for one in space) or count_combinations(space) > COUNTED:
        return None
    return sum(1 for _ in combinations(space))


def outcome(search: Search, winner: Trial, ground: Ground) -> list[str]:
    """What came out, in a few lines."""
    from tunesmith.runs.words import span
    from tunesmith.tuning.front import front
    from tunesmith.tuning.view import described

    trials = [trial for trial in search.trials if trial.origin != "seed"]
    stopped = sum(trial.status == "stopped" for trial in trials)
    failed = sum(trial.status == "failed" for trial in trials)
    parts = [f"{len(trials)} trials in {span(search.elapsed)}", *([f"{stopped} stopped early"] if stopped else [])]
    parts += [f"{failed} failed"] if failed else []
    lines = [", ".join(parts) + (f" ({search.ended_by})" if search.ended_by else "")]
    several = len(search.settings.objectives) > 1
    if several:
        lines.append("The front, which no other trial beats in everything:")
        for trial in front(search.settings, search.candidates()):
            numbers = ", ".join(f"{name} {_number(ground, trial, name)}" for name in search.settings.objectives)
            mark = " ← chosen" if trial.number == winner.number else ""
            lines.append(f"  trial {trial.number}: {numbers} ({described(trial)}){mark}")
    own = f"{ground.metric} {ground.sign * (winner.score or 0.0):.4f} on the validation split"
    lines.append(f"{'Chosen' if several else 'Best'} is trial {winner.number}: {own} with {described(winner)}")
    again = [ground.sign * score for score in search.repeated()]
    lines += [f"With other seeds: {', '.join(f'{value:.4f}' for value in again)}"] if again else []
    left = search.settings.seeds - 1 - len(again)
    if left and search.ended_by:
        lines.append(f"Not repeated with {left} other seed{'s' * (left > 1)}: the budget was spent")
    return lines


def _number(ground: Ground, trial: Trial, name: str) -> str:
    value = ground.sign * (trial.score or 0.0) if name == ground.metric else trial.value(name)
    return f"{value:.4g}" if value is not None else "–"
