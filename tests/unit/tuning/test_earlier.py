"""What a search learns from earlier runs, and which of them it leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from support.searches import Stage
from tunesmith.runs import Run
from tunesmith.tuning.earlier import earlier_trials


@pytest.mark.parametrize(
    ("section", "count", "said"),
    [
        ({}, 1, []),
        (
            {"objectives": ["accuracy", "size_mb"], "scheduler": "none"},
            0,
            [" is left out of search.warm_start: it does not say its size_mb"],
        ),
    ],
)
def test_a_single_run_counts_for_one_objective_and_is_left_out_aloud_of_several(
    stage: Stage, section: dict[str, Any], count: int, said: list[str]
) -> None:
    single = stage.recipe().with_values({"training.output_dir": str(stage.folder)}, without=("search",))
    run = Run.create(single.resolved(), ["tunesmith", "train"])
    run.update(best={"step": 5, "metric": "accuracy", "value": 0.9})
    recipe = stage.recipe(warm_start=[run.path], **section)
    told: list[str] = []
    found = earlier_trials(recipe, stage.search(recipe).space, "accuracy", 1, told.append)
    assert len(found) == count
    assert told == [run.path + line for line in said]
