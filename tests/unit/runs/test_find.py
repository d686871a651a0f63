from __future__ import annotations

import json

import pytest

from tunesmith import storage
from tunesmith.errors import RunError, UserError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run, find_resumable, find_runs


@pytest.fixture
def runs(recipe: Recipe, output_dir: str) -> list[Run]:
    """Three finished runs with names, times and metrics of their own, oldest first."""
    made = []
    for day, (name, rate, accuracy) in enumerate([("pine-old", 1e-3, 0.7), ("pine-new", 1e-5, 0.9), ("oak", 1e-4, 0.8)], 1):
        path = storage.join(output_dir, name)
        varied = recipe.override(f"training.learning_rate={rate}", check_paths=False)
        storage.write_text(storage.join(path, "recipe.yaml"), varied.to_yaml())
        manifest = {"name": name, "task": "t", "status": "done", "created": f"2030-01-0{day}T00:00:00+00:00", "steps": day * 10}
        storage.write_json(storage.join(path, "manifest.json"), manifest)
        storage.write_json(storage.join(path, "metrics.json"), {"test": {"accuracy": accuracy}})
        made.append(Run(path))
    storage.write_text(storage.join(output_dir, "no-run", "x"), "")
    storage.write_text(storage.join(output_dir, ".cache", "manifest.json"), "{}")
    return made


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ["oak", "pine-new", "pine-old"]),
        (["accuracy>0.75"], ["oak", "pine-new"]),
        (["accuracy >= 0.8", "name~PINE"], ["pine-new"]),
        (["training.learning_rate<=1e-4"], ["oak", "pine-new"]),
        (["learning_rate=1e-3"], ["pine-old"]),
        (["model.model_name_or_path~base", "steps!=10"], ["oak", "pine-new"]),
        (["created>2030-01-02"], ["oak", "pine-new"]),
        (["status=done"], ["oak", "pine-new", "pine-old"]),
        (["no_such_key>1"], []),
    ],
)
def test_filters_compare_metrics_manifest_and_recipe(output_dir: str, filters: list[str], names: list[str]) -> None:
    assert [run.name for run in find_runs(output_dir, filters)] == names


def test_task_and_status_choose_too(runs: list[Run], output_dir: str) -> None:
    runs[0].update(status="failed", task="u")
    assert [run.name for run in find_runs(output_dir, status="failed")] == ["pine-old"]
    assert [run.name for run in find_runs(output_dir, task="t")] == ["oak", "pine-new"]


@pytest.mark.parametrize("text", ["accuracy", "accuracy>", ">0.9", "accuracy>high"])
def test_a_bad_filter_says_what_one_looks_like(output_dir: str, text: str) -> None:
    with pytest.raises(UserError, match=r"is not a (filter|number)"):
        find_runs(output_dir, [text])


@pytest.mark.usefixtures("runs")
def test_a_run_opens_by_path_name_beginning_or_latest(output_dir: str) -> None:
    assert Run.open(storage.join(output_dir, "oak")).name == "oak"
    assert Run.open("oak", output_dir).name == "oak"
    assert Run.open("pine-o", output_dir).name == "pine-old"
    assert Run.open("latest", output_dir).name == "oak"


@pytest.mark.usefixtures("runs")
def test_a_run_that_is_not_there_brings_the_nearest_name(output_dir: str) -> None:
    with pytest.raises(RunError, match=r"Did you mean .*/pine-old\?"):
        Run.open("pine-odl", output_dir)
    with pytest.raises(RunError, match=r"Did you mean .*/pine-new\?"):
        Run.open(storage.join(output_dir, "pine-nww"))
    with pytest.raises(RunError, match=r"beginning of 2 runs in .*: pine-old, pine-new"):
        Run.open("pine", output_dir)
    with pytest.raises(RunError, match=r"no run 'zzz' \(3 in"):
        Run.open("zzz", output_dir)
    with pytest.raises(RunError, match="is not a run: it has no manifest"):
        Run.open(storage.join(output_dir, "no-run"))
    with pytest.raises(RunError, match="there are no runs in"):
        Run.open("latest", storage.join(output_dir, "empty"))


def age(run: Run, created: str, status: str = "failed") -> Run:
    """Give a run another date and a status, and let go of it."""
    run.update(created=created, status=status)
    run.lock().release()
    return run


@pytest.mark.usefixtures("_quick_lock")
def test_the_newest_unfinished_run_of_the_same_recipe_is_resumed(recipe: Recipe) -> None:
    assert find_resumable(recipe) is None
    age(Run.create(recipe, []), "2030-01-01")
    second = age(Run.create(recipe, []), "2030-01-02", "running")  # its process is gone
    age(Run.create(recipe.override("training.seed=1", check_paths=False), []), "2030-01-03")
    found = find_resumable(recipe)
    assert found is not None
    assert found.path == second.path


@pytest.mark.usefixtures("_quick_lock")
def test_a_run_in_progress_or_followed_by_a_finished_one_is_not_resumed(recipe: Recipe) -> None:
    busy = Run.create(recipe, [])
    assert find_resumable(recipe) is None
    age(busy, "2030-01-01", "interrupted")
    assert find_resumable(recipe) is not None
    age(Run.create(recipe, []), "2030-01-02", "done")
    assert find_resumable(recipe) is None


def test_a_run_of_an_older_version_is_still_listed(output_dir: str) -> None:
    path = storage.join(output_dir, "old")
    storage.write_text(storage.join(path, "manifest.json"), json.dumps({"created": "2020-01-01"}))
    storage.write_text(storage.join(path, "recipe.yaml"), "training: {gone: 3}")
    assert [run.name for run in find_runs(output_dir, ["training.gone=3"])] == ["old"]
