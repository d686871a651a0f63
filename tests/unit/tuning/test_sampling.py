"""What is tried next follows from the seed and the trials so far, stays in the space, and wastes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tunesmith.recipe.search import SearchSection
from tunesmith.recipe.search_space import active, parse
from tunesmith.tuning.sampling import encoded, importances, make_study, suggest
from tunesmith.tuning.trials import Report, Trial

SPACE, _ = parse(
    {
        "training.learning_rate": {"loguniform": [1e-5, 1e-1]},
        "training.adaptation": {"choice": ["full", "lora"]},
        "training.lora.r": {"randint": [2, 16], "when": {"training.adaptation": "lora"}},
        "training.weight_decay": {"quniform": [0, 0.25, 0.1]},
    }
)
RATE = SPACE[:1]


def ended(number: int, values: dict[str, Any], score: float, status: Any = "done") -> Trial:
    return Trial(number, values, "sampled", status, (Report(1, score),))


def searched(algorithm: str, count: int, seed: int = 0, good: Any = None) -> list[Trial]:
    """So many trials, one after the other."""
    settings = SearchSection(algorithm=algorithm, seed=seed, num_samples=count)  # type: ignore[arg-type]
    good = good or (lambda values: -abs(math.log10(values["training.learning_rate"]) + 3))
    trials: list[Trial] = []
    for number in range(count):
        values = suggest(settings, SPACE if algorithm != "gp" else RATE, trials, number)
        assert values is not None
        trials.append(ended(number, values, good(values)))
    return trials


@pytest.mark.parametrize("algorithm", ["random", "tpe", "gp"])
def test_the_same_seed_and_the_same_results_suggest_the_same(algorithm: str) -> None:
    one, again, other = (searched(algorithm, 8, seed) for seed in (1, 1, 2))
    assert [trial.values for trial in one] == [trial.values for trial in again]
    assert [trial.values for trial in one] != [trial.values for trial in other]


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_values_stay_in_the_space_and_conditions_hold(algorithm: str) -> None:
    for trial in searched(algorithm, 25):
        present = [one for one in SPACE if active(one, trial.values)]
        assert list(trial.values) == [one.key for one in present]
        assert all(one.has(trial.values[one.key]) for one in present)
        assert trial.values["training.weight_decay"] in (0.0, 0.1, 0.2), "steps that do not reach the end end before it"


def test_tpe_comes_closer_than_random_on_average() -> None:
    best = {
        algorithm: np.median([max(trial.score or -9 for trial in searched(algorithm, 40, seed)) for seed in range(5)])
        for algorithm in ("random", "tpe")
    }
    assert best["tpe"] > best["random"]


def test_a_finite_space_is_gone_through_once_and_then_there_is_nothing_left() -> None:
    space, _ = parse({"training.optim": {"choice": ["sgd", "adamw_torch"]}, "training.seed": {"randint": [1, 3]}})
    settings, trials = SearchSection(algorithm="random"), list[Trial]()
    while (values := suggest(settings, space, trials, len(trials))) is not None:
        trials.append(ended(len(trials), values, 0.5))
    assert len({tuple(trial.values.items()) for trial in trials}) == len(trials) == 6


def test_stopped_trials_tell_what_they_reached_and_failed_ones_nothing() -> None:
    trials = [
        ended(0, {"training.learning_rate": 1e-3}, 0.9),
        ended(1, {"training.learning_rate": 1e-2}, 0.1, "stopped"),
        ended(2, {"training.learning_rate": 1e-4}, 0.1, "failed"),
        Trial(3, {"training.learning_rate": 2e-4}, status="running"),
        ended(4, {"training.learning_rate": 7.0}, 0.1),
    ]
    study = make_study(SearchSection(), RATE, trials)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert study.trials[1].intermediate_values == {1: 0.1}


@pytest.mark.parametrize("algorithm", ["random", "tpe", "gp"])
def test_a_value_between_the_steps_of_a_range_tells_nothing_and_ends_nothing(algorithm: str) -> None:
    space, _ = parse({"training.weight_decay": {"quniform": [0, 0.1, 0.02]}})
    settings = SearchSection(algorithm=algorithm)  # type: ignore[arg-type]
    own = replace(ended(0, {"training.weight_decay": 0.01}, 0.5), origin="recipe")
    on_step = ended(1, {"training.weight_decay": 0.06}, 0.6)
    assert [trial.value for trial in make_study(settings, space, [own, on_step]).trials] == [0.6]
    assert suggest(settings, space, [own, on_step], 2) is not None


@pytest.mark.parametrize("algorithm", ["random", "tpe", "gp"])
def test_a_trial_with_an_undefined_objective_is_not_told_to_the_sampler(algorithm: str) -> None:
    settings = SearchSection(algorithm=algorithm, objectives=["accuracy", "precision/spam"])  # type: ignore[arg-type]
    trials = [
        Trial(number, {"training.learning_rate": 1e-3 / (1 + number)}, status="done",
              reports=(Report(1, 0.5, metrics={"precision/spam": value}),))
        for number, value in enumerate((0.5, math.nan, 0.7))
    ]  # fmt: skip
    assert [trial.values for trial in make_study(settings, RATE, trials).trials] == [[0.5, 0.5], [0.5, 0.7]]
    assert suggest(settings, RATE, trials, 3) is not None


@pytest.mark.parametrize("told", [[0, 1, 1 / 3], [0.1, 0.7, 0.1], [0, 1, 0.0001 / 3], [1e-5, 1e-3, 7e-6]])
def test_every_step_of_a_range_is_in_it_and_can_be_told_to_the_sampler(told: list[float]) -> None:
    (one,), _ = parse({"training.weight_decay": {"quniform": told}})
    values = one.all_values() or ()
    for value in [*values[:3], *values[len(values) // 2 :][:3], *values[-3:]]:
        assert one.has(value)
        assert not one.has(value + one.step / 2)
        assert one.at_step(encoded(one, value)) == value
        assert len(make_study(SearchSection(), [one], [ended(0, {one.key: value}, 0.5)]).trials) == 1


def test_the_key_that_decides_is_the_most_important_one() -> None:
    trials = searched("random", 30)
    found = importances(SearchSection(), SPACE, trials)
    assert next(iter(found)) == "training.learning_rate"
    assert importances(SearchSection(), SPACE, trials[:3]) == {}
