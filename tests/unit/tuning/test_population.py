"""A population has all its members, and each takes only values that are searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from support.searches import Stage
from tunesmith.recipe.search_space import parse
from tunesmith.tuning.population import perturbed

LISTED = {"training.learning_rate": {"choice": [1e-4, 1e-3]}}
OWN = 5e-5
"""The recipe's own rate, which is not among the listed ones."""


def the_lowest_rate_is_best(values: Mapping[str, Any], step: int) -> float:
    return -float(values["training.learning_rate"])


def test_a_population_is_whole_though_there_are_fewer_values_than_members(stage: Stage) -> None:
    for own in (True, False):
        recipe = stage.recipe(LISTED, scheduler="pbt", num_samples=6, generations=3, start_with_recipe=own)
        found = []
        for folder in ("one", "again"):
            played = Stage(stage.folder / f"{folder}-{own}")
            search = played.search(recipe)
            played.play(search, the_lowest_rate_is_best, at_once=2, evaluations=1, trials=30)
            assert search.is_over()
            found.append([trial.values["training.learning_rate"] for trial in search.trials])
        assert len(found[0]) == 18
        assert set(found[0]) - {OWN} <= {1e-4, 1e-3}
        assert found[0] == found[1], "what comes out follows from the seed"


def test_a_value_beside_the_listed_ones_is_changed_to_one_of_them() -> None:
    space, _ = parse(LISTED)
    rng = np.random.default_rng(0)
    assert {perturbed(space, {"training.learning_rate": OWN}, rng)["training.learning_rate"] for _ in range(20)} == {1e-4, 1e-3}
