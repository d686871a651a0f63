"""The front is what nothing beats, and the rule chooses the cheapest of those that are good enough."""

from __future__ import annotations

import math

from tunesmith.recipe.search import SearchSection
from tunesmith.tuning.front import front, winner
from tunesmith.tuning.trials import Report, Trial


def trial(number: int, accuracy: float, latency: float) -> Trial:
    return Trial(number, {}, status="done", reports=(Report(1, accuracy),), objectives={"latency_ms": latency})


TRIALS = [trial(0, 0.90, 9.0), trial(1, 0.895, 3.0), trial(2, 0.80, 1.0), trial(3, 0.89, 4.0), trial(4, 0.90, 9.5)]
BOTH = SearchSection(objectives=["accuracy", "latency_ms"])


def test_the_front_is_what_no_other_beats_in_everything() -> None:
    assert [one.number for one in front(BOTH, TRIALS)] == [0, 1, 2]


def test_of_those_within_the_tolerance_the_best_in_the_second_objective_wins() -> None:
    for tolerance, number in ((0.0, 0), (0.01, 1), (0.2, 2)):
        found = winner(BOTH.model_copy(update={"tolerance": tolerance}), TRIALS)
        assert found is not None
        assert found.number == number


def test_with_one_objective_the_highest_score_wins_and_of_equal_ones_the_first() -> None:
    found = winner(SearchSection(), TRIALS)
    assert found is not None
    assert found.number == 0
    assert winner(SearchSection(), []) is None


def test_a_trial_with_an_undefined_objective_is_on_no_front_and_does_not_win() -> None:
    undefined = [trial(5, 0.95, math.nan), trial(6, -math.inf, 0.5)]
    assert [one.number for one in front(BOTH, [*undefined, *TRIALS])] == [0, 1, 2]
    found = winner(BOTH, [*undefined, *TRIALS])
    assert found is not None
    assert found.number == 1
    assert winner(BOTH, undefined) is None
