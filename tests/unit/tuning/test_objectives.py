"""A search by several objectives chooses among the trials that have them all."""

from __future__ import annotations

import math

import pytest

from support.searches import Stage
from tunesmith.errors import UserError
from tunesmith.tuning.record import _row
from tunesmith.tuning.search import Search

OBJECTIVES = ["accuracy", "precision/spam"]


def play(search: Search, precisions: list[float]) -> None:
    """A trial of one evaluation for each precision, then the end of the search."""
    for precision in precisions:
        trial = search.next()
        assert trial is not None
        report = {"step": 9, "score": 0.5 + trial.number / 10, "seconds": 1.0}
        search.report(trial.number, {"report": {**report, "metrics": {"precision/spam": precision}}, "steps": 9})
        search.end(trial.number, {"status": "done", "objectives": {}})
    assert search.is_over()
    search.close()


@pytest.mark.parametrize("algorithm", ["tpe", "random", "gp"])
def test_a_trial_with_an_undefined_objective_is_left_out_and_no_mistake(stage: Stage, algorithm: str) -> None:
    recipe = stage.recipe(objectives=OBJECTIVES, scheduler="none", algorithm=algorithm, num_samples=4, give_up_after=1, seeds=1)
    search = stage.search(recipe)
    play(search, [math.nan, 0.5, math.nan, 0.7])
    assert search.failure is None
    assert [trial.status for trial in search.trials] == ["done"] * 4
    for one in (search, stage.search(recipe)):
        assert [trial.number for trial in one.candidates()] == [1, 3]
        assert [_row(trial, 1, OBJECTIVES[1:])["objectives"] for trial in one.trials[:2]] == [{}, {"precision/spam": 0.5}]


def test_where_every_trial_has_an_undefined_objective_the_search_says_so(stage: Stage) -> None:
    recipe = stage.recipe(objectives=OBJECTIVES, scheduler="none", num_samples=2)
    search = stage.search(recipe)
    play(search, [math.nan, math.nan])
    again = stage.search(recipe)
    again.close()
    for one in (search, again):
        assert isinstance(one.failure, UserError)
        assert "search.objectives: none of 2 trials has a number for each of accuracy, precision/spam" in str(one.failure)


def test_the_winner_among_several_objectives_is_repeated_only_if_it_has_them_all(stage: Stage) -> None:
    search = stage.search(stage.recipe(objectives=OBJECTIVES, scheduler="none", num_samples=2, seeds=2))
    play(search, [0.5, math.nan, 0.6])
    assert search.trials[2].origin == "seed"
    assert search.trials[2].values["training.learning_rate"] == search.trials[0].values["training.learning_rate"]
