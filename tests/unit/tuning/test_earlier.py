"""What a search learns from earlier runs, and which of them it leaves out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from support.searches import Stage
from tunesmith.runs import Run
from tunesmith.tuning.earlier import earlier_trials
from tunesmith.tuning.sampling import suggest
from tunesmith.tuning.trials import Ledger, Report, as_line


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


def test_an_earlier_search_with_an_undefined_evaluation_tells_what_it_tried(stage: Stage) -> None:
    recipe = stage.recipe().with_values({"training.output_dir": str(stage.folder)})
    run = Run.create(recipe.resolved(), ["tunesmith", "tune"])
    run.update(search={"metric": "precision/spam"})
    ledger, name = Ledger(run.path), "precision/spam"
    for number, scores in enumerate(((-math.inf, 0.5), (-math.inf, -math.inf))):
        ledger.write(number, values={"training.learning_rate": 1e-3 * (number + 1)}, status="done")
        for step, score in enumerate(scores):
            metrics = {name: math.nan if score == -math.inf else score, "loss": 0.7}
            ledger.write(number, report=as_line(Report(step, score, metrics=metrics)))
    recipe = stage.recipe(warm_start=[run.path], metric=name, mode="max")
    search = stage.search(recipe)
    found = earlier_trials(recipe, search.space, name, 1)
    assert [trial.score for trial in found] == [0.5, -math.inf]
    assert math.isnan(found[0].reports[0].metrics[name])
    assert suggest(search.settings, search.space, found, 0) is not None
