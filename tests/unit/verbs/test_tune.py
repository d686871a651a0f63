"""Which run a search writes to: its own unfinished one, and never another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.searches import Stage
from tunesmith import storage
from tunesmith.errors import RunError, UserError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.tuning.ground import Ground
from tunesmith.verbs.search_words import outcome, plan, planned
from tunesmith.verbs.standing import record_for
from tunesmith.verbs.tune import tune

COMMAND = ["tunesmith", "tune", "recipe.yaml"]


def recipe(folder: Path, **search: Any) -> Recipe:
    space = {"training.learning_rate": {"loguniform": [1e-5, 1e-2]}}
    values = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "owner/base"},
        "data": {"train": "hf://owner/data"},
        "training": {"output_dir": str(folder / "runs")},
        "search": {"space": space, **search},
    }
    return Recipe.from_dict(values).resolved()


def ended(run: Run, status: Any) -> Run:
    run.set_status(status)
    run.lock().release()
    return run


def test_an_unfinished_search_is_gone_on_with_and_another_search_is_not(tmp_path: Path) -> None:
    run, new = record_for(recipe(tmp_path), None, False, True, COMMAND, search_by="f1_macro")
    assert new
    assert Recipe.load(run.file("search.yaml")).search.space
    ended(run, "interrupted")
    again, new = record_for(recipe(tmp_path), None, False, True, COMMAND, search_by="f1_macro")
    assert (again.path, new) == (run.path, False)
    other, new = record_for(recipe(tmp_path, num_samples=3), None, False, True, COMMAND, search_by="f1_macro")
    assert new
    assert other.path != run.path
    plain, new = record_for(recipe(tmp_path), None, False, True, COMMAND)
    assert new, "a training does not go on with a search of its recipe"
    assert plain.path not in (run.path, other.path)


def test_a_named_run_must_be_the_searchs_own_and_force_starts_it_over(tmp_path: Path) -> None:
    place = str(tmp_path / "mine")
    run = ended(record_for(recipe(tmp_path), place, False, True, COMMAND, search_by="f1_macro")[0], "interrupted")
    with pytest.raises(RunError, match=r"mine is a run of another recipe or search\n +→ Name another folder, or add --force"):
        record_for(recipe(tmp_path, num_samples=3), place, False, True, COMMAND, search_by="f1_macro")
    ended(run, "done")
    with pytest.raises(RunError, match=r"mine is a finished search\n +→ Name another folder, or add --force to search again"):
        record_for(recipe(tmp_path), place, False, True, COMMAND, search_by="f1_macro")
    storage.write_text(run.file("trials.jsonl"), "{}")
    over, new = record_for(recipe(tmp_path, num_samples=3), place, True, True, COMMAND, search_by="loss")
    assert not new
    assert over.manifest["search"]["metric"] == "loss"
    assert Recipe.load(over.file("search.yaml")).search.num_samples == 3
    assert not storage.exists(over.file("trials.jsonl"))


def test_nothing_to_search_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the recipe searches nothing"):
        tune(recipe(tmp_path).with_values({}, without=("search",)))
    assert not (tmp_path / "runs").exists()


def test_trials_are_counted_by_what_there_is_to_try(tmp_path: Path) -> None:
    seeds = {"training.seed": {"choice": [1, 2, 42]}, "training.adaptation": {"choice": ["full", "lora"]}}
    assert planned(recipe(tmp_path, num_samples=12, seeds=3)) == 14
    assert planned(recipe(tmp_path, space=seeds)) == 6, "the recipe's own values are among them"
    other = {**seeds, "training.seed": {"choice": [1, 2, 3]}}
    assert planned(recipe(tmp_path, space=other)) == 7
    assert planned(recipe(tmp_path, space=other, start_with_recipe=False)) == 6
    assert plan(recipe(tmp_path, space=other)).startswith(
        "2 hyperparameters by TPE, ASHA stops what lags behind: all 6 combinations and the recipe's own values, "
    )
    few = plan(recipe(tmp_path, space=other, num_samples=6))
    assert "at most 6 trials of 6 combinations and the recipe's own values, " in few, "of which one takes one of the six"
    assert "all 6 combinations, " in plan(recipe(tmp_path, space=other, num_samples=6, start_with_recipe=False))
    assert planned(recipe(tmp_path, scheduler="pbt", num_samples=8, generations=3)) == 24


def test_seeds_for_which_the_budget_left_nothing_are_said_to_be_left_out(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    asked = stage.recipe(num_samples=50, scheduler="none", time_budget_s=30, seeds=3)
    search = stage.search(asked)
    stage.play(search, lambda values, step: values["training.learning_rate"])
    lines = outcome(search, search.candidates()[0], Ground(asked, load_task("text-classification")))
    assert lines[-1] == "Not repeated with 2 other seeds: the budget was spent"
