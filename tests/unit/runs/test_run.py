from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from tunesmith import storage
from tunesmith.errors import RunError
from tunesmith.recipe import Recipe
from tunesmith.runs import Artefact, Run

COMMAND = ["tunesmith", "train", "recipe.yaml", "--token", "hunter2"]


pytestmark = pytest.mark.usefixtures("_quick_lock")


def other(recipe: Recipe, *overrides: str) -> Recipe:
    return recipe.override(*overrides, check_paths=False)


def test_a_new_run_has_its_recipe_and_a_manifest_without_secrets(recipe: Recipe, output_dir: str) -> None:
    run = Run.create(recipe, COMMAND)
    assert re.fullmatch(r"digits-\d{8}-\d{6}-[0-9a-f]{4}", run.name)
    assert storage.list_dirs(output_dir) == [run.path]
    again = Run.open(run.path)
    assert again.recipe.training.learning_rate == recipe.training.learning_rate
    assert again.recipe.fingerprint() == recipe.fingerprint() == again.manifest["recipe_fingerprint"]
    assert again.manifest["command"] == [*COMMAND[:4], "***"]
    assert (again.manifest["name"], again.manifest["task"], again.manifest["status"]) == ("digits", recipe.task, "running")
    assert "hunter2" not in storage.read_text(run.file("manifest.json"))
    with run.lock():
        pass


def test_two_runs_of_one_second_do_not_meet(recipe: Recipe, output_dir: str) -> None:
    runs = [Run.create(recipe, COMMAND) for _ in range(5)]
    assert len({run.name for run in runs}) == len(storage.list_dirs(output_dir)) == 5


def test_a_run_goes_where_it_is_told_unless_something_is_there(recipe: Recipe, output_dir: str) -> None:
    place = storage.join(output_dir, "mine")
    assert Run.create(recipe, COMMAND, place).path == place
    with pytest.raises(RunError, match="is not empty"):
        Run.create(recipe, COMMAND, place)


@pytest.mark.parametrize("loss", ["cross_entropy", "losses_of_mine.loss"])
def test_a_start_that_was_interrupted_leaves_its_folder_free(
    recipe: Recipe, output_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    place = storage.join(output_dir, "mine")
    (tmp_path / "losses_of_mine.py").write_text("def loss(logits, targets): ...\n")
    values = recipe.model_dump(mode="json", exclude_unset=True)
    values["training"]["loss"] = loss
    recipe = Recipe.from_dict(values, base_dir=str(tmp_path), check_paths=False)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tunesmith.runs.manifest.collect", stopped)
        with pytest.raises(KeyboardInterrupt):
            Run.create(recipe, COMMAND, place)
    run = Run.create(recipe, COMMAND, place)
    run.lock().release()
    storage.delete(run.file("manifest.json"))
    storage.write_json(run.file("lock.json"), {"host": "elsewhere", "pid": 1, "time": 0.0, "token": "killed"})
    assert Run.create(recipe, COMMAND, place).manifest["status"] == "running", "one that was killed, too"


def test_code_of_ones_own_beside_the_recipe_is_kept_with_the_run(recipe: Recipe, tmp_path: Path) -> None:
    beside = tmp_path / "recipes"
    (beside / "mine").mkdir(parents=True)
    (beside / "losses_of_mine.py").write_text("def loss(logits, targets): ...\n")
    (beside / "mine" / "suite.py").write_text("def judge(bench): ...\n")
    values = recipe.model_dump(mode="json", exclude_unset=True)
    values["training"]["loss"], values["evaluation"] = "losses_of_mine.loss", {"suites": ["mine.suite.judge"]}
    own = Recipe.from_dict(values, base_dir=str(beside), check_paths=False)
    run = Run.create(own, COMMAND)
    assert storage.read_text(run.file("losses_of_mine.py")).startswith("def loss")
    assert storage.read_text(run.file("mine/suite.py")).startswith("def judge")
    storage.delete(run.file("losses_of_mine.py"))
    run.adopt(own)
    assert storage.exists(run.file("losses_of_mine.py")), "of a recipe that won a search, too"
    again = Run.open(run.path)
    again.lock().acquire(force=True)
    again.start_over(Recipe.load(run.file("recipe.yaml"), check_paths=False), COMMAND)
    assert storage.exists(run.file("losses_of_mine.py")), "begun anew from the run's own recipe.yaml"


def test_an_unwritable_place_is_the_users_error(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file, not a folder"):
        Run.create(other(recipe, f"training.output_dir={tmp_path / 'file' / 'runs'}"), COMMAND)


def test_updates_merge_and_are_seen_by_others(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    viewer = Run.open(run.path)
    run.update(durations={"prepare": 1.5}, steps=10)
    viewer.update(durations={"train": 20.0}, data={"train": {"source": "s3://me:key@bucket/x.csv"}})
    seen = Run.open(run.path).manifest
    assert seen["durations"] == {"prepare": 1.5, "train": 20.0}
    assert seen["steps"] == 10
    assert seen["data"]["train"]["source"] == "s3://***@bucket/x.csv"


def test_a_run_whose_process_is_gone_is_interrupted(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    assert Run.open(run.path).status == "running"
    run.lock().release()
    assert Run.open(run.path).status == "interrupted"
    run.set_status("done")
    assert Run.open(run.path).status == "done"
    assert "finished" in run.manifest
    with pytest.raises(ValueError, match="no such status"):
        run.set_status("fine")  # type: ignore[arg-type]


def test_the_history_reads_back_and_is_cut_at_a_checkpoint(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    for step in range(1, 6):
        run.log_metrics({"step": step, "split": "train", "loss": 1 / step})
    run.log_metrics({"step": 4, "split": "validation", "loss": float("nan")})
    assert run.truncate_history(4) == 1
    run.log_metrics({"step": 5, "split": "train", "loss": 0.1, "time": 7.0})
    run.set_status("done")
    history = Run.open(run.path).history
    assert [(r["step"], r["loss"]) for r in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25), (4, None), (5, 0.1)]
    assert history[-1]["time"] == 7.0
    assert 0 <= history[0]["time"] < 60


def test_metrics_are_the_verdict_on_the_test_split(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    assert run.metrics == {}
    estimate = {"value": 0.9, "low": 0.85, "high": 0.93, "n": 200, "method": "wilson"}
    storage.write_json(run.file("metrics.json"), {"test": {"metrics": {"accuracy": estimate, "roc_auc": {"value": None}}}})
    assert run.metrics == {"accuracy": 0.9, "roc_auc": None}
    assert run.estimates["accuracy"] == {"value": 0.9, "low": 0.85, "high": 0.93, "n": 200}


def test_another_recipe_is_refused_with_the_keys_that_differ(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    run.check_recipe(recipe)
    run.check_recipe(other(recipe, "training.report_to=[tensorboard]"))
    with pytest.raises(RunError) as caught:
        run.check_recipe(other(recipe, "training.learning_rate=1e-3", "data.train=/data/new.csv"))
    lines = str(caught.value).splitlines()
    assert lines[1:3] == [
        "  data.train: '/data/train.csv' in the run, '/data/new.csv' now",
        "  training.learning_rate: 5e-05 in the run, 0.001 now",
    ]
    assert len(lines) == 4
    assert "--force" in lines[3]


def test_starting_over_leaves_nothing_of_the_old_run(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    run.log_metrics({"step": 1, "loss": 1.0})
    run.flush()
    storage.write_text(run.file("checkpoints/1/state"), "old")
    assert run.recipe.training.seed == 42
    run.start_over(other(recipe, "training.seed=7"), COMMAND)
    assert run.history == []
    assert not storage.exists(run.file("checkpoints/1/state"))
    assert run.recipe.training.seed == 7
    assert run.status == "running"


def test_a_run_that_another_process_writes_is_not_started_over(recipe: Recipe) -> None:
    busy = Run.create(recipe, COMMAND)
    busy.log_metrics({"step": 1})
    busy.flush()
    with pytest.raises(RunError, match="is being written by process"):
        Run.open(busy.path).start_over(other(recipe, "training.seed=7"), COMMAND)
    assert len(busy.history) == 1
    busy.lock().release()
    again = Run.open(busy.path)
    again.start_over(other(recipe, "training.seed=7"), COMMAND)
    with again.lock():
        assert again.status == "running"


def test_the_model_comes_to_this_machine_once(
    recipe: Recipe, output_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Run.create(recipe, COMMAND)
    with pytest.raises(RunError, match="has no model yet: the run is running"):
        run.local_model()
    Artefact(task="text-classification", state={"labels": ["a"]}).write(run.file("model"))
    folder = run.local_model()
    assert Artefact.read(folder).state == {"labels": ["a"]}
    assert run.local_model() == folder
    if not storage.is_local(output_dir):
        Artefact(task="text-classification", state={"labels": ["b"]}).write(run.file("model"))
        assert Artefact.read(run.local_model()).state == {"labels": ["b"]}


@pytest.mark.parametrize("content", ["", "[]", '{"name": "x"'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    storage.write_text(tmp_path / "manifest.json", content)
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        Run.open(tmp_path)


def test_a_run_travels_to_another_process(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    assert pickle.loads(pickle.dumps(run)).manifest == run.manifest


def test_a_notebook_shows_status_headline_and_report_escaped(recipe: Recipe) -> None:
    run = Run.create(recipe, COMMAND)
    assert f"<b>{run.name}: running</b>" in run._repr_html_()
    assert "<table>" not in run._repr_html_(), "nothing was judged"
    metrics = {
        "loss": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9},
        "f1/<b>": {"value": 0.1},
        "<i>": {"value": 0.9, "low": None, "high": None, "n": 9},
    }
    storage.write_json(run.file("metrics.json"), {"headline": "<i>", "test": {"metrics": metrics}})
    shown = run._repr_html_()
    assert "<td>&lt;i&gt;</td><td>0.9000</td></tr><tr><td>loss</td><td>0.5000 [0.4000, 0.6000]</td>" in shown
    assert "f1/" not in shown
    assert shown.endswith(f"<p>Report: {run.file('report.html')}</p>")
