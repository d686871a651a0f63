"""What to try next: grid, random, tree-structured Parzen estimators, a Gaussian process.

Every suggestion follows from the space, the seed and the trials so far alone, so that a search can be gone on with. Optuna's
samplers are asked through a study that is made of the trials each time (a millisecond or so for a hundred of them).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.recipe.search_checks import lower_is_better
from tunesmith.recipe.search_space import Dimension, active, combinations, count_combinations
from tunesmith.tuning.trials import Trial

if TYPE_CHECKING:
    import optuna

    from tunesmith.recipe.search import SearchSection

STARTUP = 10
"""Random trials before TPE and the Gaussian process model anything (Optuna's default of TPE)."""

EXCLUDED = -1e11
"""Scores below are of models beyond the retention ceiling, which tell nothing of how good values are."""

COUNTED = 10_000
"""Spaces of at most so many combinations are known to be exhausted when they are."""

ATTEMPTS = 25
"""How often something new is drawn where values were tried already."""


def suggest(settings: SearchSection, space: Sequence[Dimension], trials: Sequence[Trial], number: int) -> dict[str, Any] | None:
    """The values of the trial with this number, or None where nothing is left to try."""
    tried = [dict(trial.values) for trial in trials if trial.origin in ("recipe", "sampled")]
    countable = settings.algorithm == "grid" or (
        all(one.all_values() is not None for one in space) and count_combinations(space) <= COUNTED
    )
    left = next((values for values in combinations(space) if values not in tried), None) if countable else None
    if settings.algorithm == "grid" or (countable and left is None):
        return left
    for attempt in range(ATTEMPTS):
        values = _drawn(settings, space, trials, number, attempt)
        if values not in tried:
            return values
    return left if left is not None else values


def _drawn(
    settings: SearchSection, space: Sequence[Dimension], trials: Sequence[Trial], number: int, attempt: int
) -> dict[str, Any]:
    import optuna

    study = make_study(settings, space, trials)
    study.sampler = _sampler(
        settings, trials, int(np.random.SeedSequence((settings.seed, number, attempt)).generate_state(1)[0])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        values: dict[str, Any] = {}
        asked = study.ask()
        for one in space:
            if active(one, values):
                values[one.key] = _asked(asked, one)
    return values


def _sampler(settings: SearchSection, trials: Sequence[Trial], seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if settings.algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    startup = min(STARTUP, max(3, settings.num_samples // 3))
    if settings.algorithm == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
        )


def make_study(settings: SearchSection, space: Sequence[Dimension], trials: Sequence[Trial]) -> optuna.Study:
    """Optuna's view of the trials: finished ones with their values, stopped ones with what they had reached."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    several = len(settings.objectives) > 1
    directions: list[Any] = ["maximize"] + [
        "minimize" if lower_is_better(name) else "maximize" for name in settings.objectives[1:]
    ]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0))
    for trial in trials:
        if trial.origin != "seed" and (made := _frozen(settings, space, trial, several)) is not None:
            study.add_trial(made)
    return study


def _frozen(
    settings: SearchSection, space: Sequence[Dimension], trial: Trial, several: bool
) -> optuna.trial.FrozenTrial | None:
    """A trial as Optuna keeps it; None where its values lie outside of the space, or it failed."""
    import optuna

    inside = [one for one in space if active(one, trial.values)]
    if trial.status == "failed" or any(one.key not in trial.values or not one.has(trial.values[one.key]) for one in inside):
        return None
    params = {one.key: encoded(one, trial.values[one.key]) for one in inside}
    distributions = {one.key: distribution(one) for one in inside}
    state = optuna.trial.TrialState
    if trial.status in ("waiting", "running"):
        return optuna.trial.create_trial(state=state.RUNNING, params=params, distributions=distributions)
    if trial.score is None or not math.isfinite(trial.score) or trial.score <= EXCLUDED:
        return None
    found = [trial.score, *(trial.value(name) for name in settings.objectives[1:])]
    values = [value for value in found if value is not None]
    if len(values) < len(found):
        return None
    if trial.status == "stopped" and not several:
        reached = {index + 1: one.score for index, one in enumerate(trial.reports)}
        return optuna.trial.create_trial(
            state=state.PRUNED, params=params, distributions=distributions, intermediate_values=reached
        )
    return optuna.trial.create_trial(
        state=state.COMPLETE,
        values=values,
        params=params,
        distributions=distributions,
    )


def distribution(one: Dimension) -> optuna.distributions.BaseDistribution:
    """A dimension as Optuna has it; words and lists by their place among the values, steps by their number."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.kind in ("choice", "grid"):
        return CategoricalDistribution(tuple(range(len(one.values))))
    if one.kind == "randint":
        return IntDistribution(int(one.low), int(one.high))
    if one.kind == "quniform":
        return IntDistribution(0, one.steps)
    return FloatDistribution(one.low, one.high, log=one.log)


def encoded(one: Dimension, value: Any) -> Any:
    """A value as Optuna has it."""
    if one.kind in ("choice", "grid"):
        return one.values.index(value)
    if one.kind == "quniform":
        return one.step_of(value)
    return int(value) if one.kind == "randint" else float(value)


def _asked(asked: optuna.Trial, one: Dimension) -> Any:
    if one.kind in ("choice", "grid"):
        return one.values[asked.suggest_categorical(one.key, list(range(len(one.values))))]
    if one.kind == "randint":
        return asked.suggest_int(one.key, int(one.low), int(one.high))
    if one.kind == "quniform":
        return one.at_step(asked.suggest_int(one.key, 0, one.steps))
    return asked.suggest_float(one.key, one.low, one.high, log=one.log)


def importances(settings: SearchSection, space: Sequence[Dimension], trials: Sequence[Trial]) -> Mapping[str, float]:
    """The share of the scores' variance that each key explains by itself (fANOVA, Hutter et al. 2014), highest first.

    Empty where fewer than five trials with different scores have an end. Of keys under a condition nothing is said.
    """
    import optuna

    settings = settings.model_copy(update={"objectives": []})
    ended = [trial for trial in trials if trial.status in ("done", "stopped") and trial.origin != "earlier"]
    # Of the stopped ones too, as they stood: without them only the good half of the space is looked at.
    study = make_study(settings, space, [_as_done(trial) for trial in ended])
    values = [trial.value for trial in study.trials]
    if len(values) < 5 or len(set(values)) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=settings.seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(value) for key, value in found.items()}


def _as_done(trial: Trial) -> Trial:
    return replace(trial, status="done")
