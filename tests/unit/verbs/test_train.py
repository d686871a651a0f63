"""What ``train`` does around the training: which run it writes to, how the run stands after every ending, what it tells."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tunesmith import storage
from tunesmith.errors import DataError, RunError, TrainingFailed, UserError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.training.progress import Progress
from tunesmith.verbs.recording import Listener, outcome, timed
from tunesmith.verbs.standing import record_for, standing
from tunesmith.verbs.train import command, train

COMMAND = ["tunesmith", "train", "recipe.yaml"]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    storage.write_text(tmp_path / "train.csv", "text,label\n")
    values = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "owner/base"},
        "data": {"train": str(tmp_path / "train.csv")},
        "training": {"output_dir": str(tmp_path / "runs")},
    }
    return Recipe.from_dict(values)


@pytest.fixture
def run(recipe: Recipe) -> Iterator[Run]:
    run = Run.create(recipe, COMMAND)
    yield run
    run.lock().release()


def runs(recipe: Recipe) -> list[str]:
    return [place for place in storage.list_dirs(recipe.training.output_dir) if not storage.name(place).startswith(".")]


def test_bad_data_leaves_no_new_run(recipe: Recipe) -> None:
    with pytest.raises(DataError, match="has no rows"):
        train(recipe)

    assert runs(recipe) == []


def test_bad_data_leaves_an_unfinished_run_to_go_on_with(recipe: Recipe, run: Run) -> None:
    run.set_status("interrupted")
    run.lock().release()

    with pytest.raises(DataError):
        train(recipe)

    assert runs(recipe) == [run.path]
    assert Run.open(run.path).status == "failed"


def test_bad_data_does_not_cost_the_run_that_force_would_start_over(recipe: Recipe, run: Run) -> None:
    storage.write_text(run.file("report.html"), "precious")
    run.lock().release()

    with pytest.raises(DataError):
        train(recipe, run=run.path, force=True)

    assert storage.read_text(run.file("report.html")) == "precious"


TOO_LONG = r"training.unfreeze: the schedule is longer than the training(.|\n)*→ Write training.unfreeze"
NO_TARGET = r"training.lora.target_modules \['qeury'\] matches no module(.|\n)*such as query"


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"class_weights": {"lwo": 3}}, r"training.class_weights.lwo: there is no class lwo .*\n.*Did you mean low"),
        ({"unfreeze": {"every_epochs": 2}}, TOO_LONG),
        ({"adaptation": "lora", "lora": {"target_modules": ["qeury"]}}, NO_TARGET),
        ({"num_workers": 100}, r"48 training examples cannot fill 100 workers"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_cannot_be_trained_is_told_before_ray_starts(
    training: dict[str, Any], words: str, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.data import texts
    from support.models import tiny_bert

    def connect(*_: object, **__: object) -> None:
        pytest.fail("Ray was about to start")

    monkeypatch.setattr("tunesmith.cluster.connect.connect", connect)
    storage.write_text(tmp_path / "train.csv", "\n".join(["text,label", *(f"{r['text']},{r['label']}" for r in texts(60))]))
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(tiny_bert(tmp_path / "base"))},
        "data": {"train": str(tmp_path / "train.csv")},
        "training": {"output_dir": str(tmp_path / "runs"), **training},
    }
    recipe = Recipe.from_dict(values)
    kept = _kept_run(recipe) if force else None

    with pytest.raises(UserError, match=words):
        train(recipe, run=kept.path if kept else None, force=force)

    assert runs(recipe) == ([kept.path] if kept else [])
    if kept:
        assert storage.read_text(kept.file("report.html")) == "precious"


def _kept_run(recipe: Recipe) -> Run:
    run = Run.create(recipe, COMMAND)
    storage.write_text(run.file("report.html"), "precious")
    run.lock().release()
    return run


def test_force_without_a_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "recipe.yaml"), "--force"])

    assert isinstance(result.exception, UserError)
    assert "--run DIR" in str(result.exception)


def test_an_unfinished_run_is_gone_on_with_unless_a_new_one_is_wanted(recipe: Recipe, run: Run) -> None:
    run.set_status("interrupted")
    run.lock().release()

    found, new = record_for(recipe.resolved(), None, False, True, COMMAND)
    assert (found.path, new) == (run.path, False)

    other, new = record_for(recipe.resolved(), None, False, False, COMMAND)
    other.lock().release()
    assert new
    assert other.path != run.path


def test_a_finished_run_is_refused_and_started_over_by_force(recipe: Recipe, run: Run) -> None:
    storage.write_text(run.file("report.html"), "old")
    run.set_status("done")
    run.lock().release()

    with pytest.raises(RunError, match="is a finished run"):
        record_for(recipe.resolved(), run.path, False, True, COMMAND)

    again, new = record_for(recipe.resolved(), run.path, True, True, COMMAND)
    again.lock().release()
    assert not new
    assert not storage.exists(run.file("report.html"))


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "done"), (KeyboardInterrupt(), "interrupted"), (SystemExit(), "interrupted"), (TrainingFailed("x"), "failed")],
)
def test_the_run_says_how_it_ended(run: Run, error: BaseException | None, status: str) -> None:
    with contextlib.suppress(KeyboardInterrupt, SystemExit, TrainingFailed), standing(run, new=True):
        assert Run(run.path).status == "running"
        if error is not None:
            raise error

    assert Run(run.path).status == status == outcome(type(error) if error else None)
    assert not run.lock().held


def test_an_interruption_tells_how_to_go_on(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt) as raised, standing(run, new=True):
        raise KeyboardInterrupt

    assert raised.value.__notes__ == [f"The same command goes on with {run.path}"]


def test_a_mistake_that_shows_in_training_leaves_its_record(run: Run) -> None:
    run.log_metrics({"step": 10, "split": "train", "loss": 1.0})

    with pytest.raises(UserError), standing(run, new=True):
        raise UserError("out of memory")

    assert Run(run.path).status == "failed"


def test_a_restart_is_told_once_and_what_is_done_again_is_written_once(recipe: Recipe, run: Run) -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, width=160)) as progress, Listener(recipe, run, progress) as listener:
        start = {"kind": "start", "steps": 40, "steps_per_epoch": 10, "epoch": 0.0}
        line = {"kind": "step", "split": "train", "steps": 40, "epoch": 1.0, "learning_rate": 0.1}
        listener.hear({**start, "step": 0})
        for step in (10, 20, 30):
            listener.hear({**line, "step": step, "loss": 1 / step})
        listener.hear({"kind": "died"})
        listener.hear({"kind": "died"})
        listener.hear({**start, "step": 20})
        listener.hear({**line, "step": 30, "loss": 1 / 30})

    assert [line["step"] for line in run.history] == [10, 20, 30]
    assert listener.step == 30
    assert screen.getvalue().count("A worker died") == 1
    assert "Resuming after step 20 of 40" in screen.getvalue()


def test_a_restart_that_nobody_announced_is_told_too(recipe: Recipe, run: Run) -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, width=160)) as progress, Listener(recipe, run, progress) as listener:
        for step in (0, 20):
            listener.hear({"kind": "start", "step": step, "steps": 40, "epoch": 0.0})

    assert screen.getvalue().count("A worker died") == 1
    assert listener.step == 20, "a run that is resumed at its end has done these steps"


def test_the_seconds_of_every_session_are_added_up(run: Run) -> None:
    run.update(durations={"prepare": 1.5, "train": 100.0})

    with pytest.raises(KeyboardInterrupt), timed(run, "train"):
        raise KeyboardInterrupt

    assert 100.0 <= run.manifest["durations"]["train"] < 110
    assert run.manifest["durations"]["prepare"] == 1.5


def test_overfitting_is_told_once_while_it_trains(recipe: Recipe, run: Run) -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, width=300)) as progress, Listener(recipe, run, progress) as listener:
        for step, loss, gap in ((10, 0.4, 0.0), (20, 0.5, 0.2), (30, 0.6, 0.4), (40, 0.7, 0.6)):
            listener.hear({"kind": "eval", "split": "validation", "step": step, "loss": loss, "gap": gap, "best_step": 10})

        assert screen.getvalue().count("Overfitting so far: since step 10") == 1
        assert [line["gap"] for line in run.history] == [0.0, 0.2, 0.4, 0.6]
        for step, loss, gap in ((50, 0.3, 0.0), (60, 0.5, 0.2), (70, 0.6, 0.4)):
            listener.hear({"kind": "eval", "split": "validation", "step": step, "loss": loss, "gap": gap, "best_step": 50})

    assert screen.getvalue().count("Overfitting so far: since step 50") == 1, "the better evaluation took the first back"


def test_what_is_kept_of_the_old_is_logged_and_why_training_stopped_is_recorded(recipe: Recipe, run: Run) -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, width=300)) as progress, Listener(recipe, run, progress) as listener:
        line = {"kind": "retention", "split": "retention/old", "step": 10, "epoch": 1.0, "accuracy": 0.7, "drop": 0.2}
        listener.hear(line)
        listener.hear({"kind": "done", "step": 10, "steps": 30, "stopped_by": "retention/old is 0.2 worse"})

    assert [(one["split"], one["drop"]) for one in run.history] == [("retention/old", 0.2)]
    assert Run(run.path).manifest["stopped_by"] == "retention/old is 0.2 worse"
    assert "retention/old at step 10: accuracy 0.7000  drop 0.2000" in screen.getvalue()
    assert "Stopped: retention/old is 0.2 worse" in screen.getvalue()


@pytest.mark.parametrize(("most", "beyond"), [(0.05, True), (0.99, False)])
def test_a_kept_model_beyond_the_ceiling_is_told_and_recorded(most: float, beyond: bool, tmp_path: Path) -> None:
    from support.data import texts
    from support.models import tiny_bert
    from tunesmith.data.old import prepare_old
    from tunesmith.data.prepare import prepare
    from tunesmith.tasks import load_task
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
    from tunesmith.training.launch import Trained
    from tunesmith.training.spec import OldData
    from tunesmith.verbs.train import Session, keep_model

    other = {"low": "high", "high": "low"}  # of old rows the opposite is true, so that they are forgotten
    for name, lines in (
        ("train", [f"{row['text']},{row['label']}" for row in texts(80)]),
        ("old", [f"{row['text']},{other[row['label']]}" for row in texts(40, seed=6)]),
    ):
        storage.write_text(tmp_path / f"{name}.csv", "\n".join(["text,label", *lines]))
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(tiny_bert(tmp_path / "base", spread=0.2, labels=["high", "low"]))},
        "data": {"train": str(tmp_path / "train.csv"), "split": {"validation": 0.2, "test": 0.1}},
        "training": {"output_dir": str(tmp_path / "runs"), "learning_rate": 3e-3, "num_train_epochs": 4, "use_gpu": False},
        "evaluation": {"retention": {"data": str(tmp_path / "old.csv"), "max_drop": most, "choose": True}},
    }
    recipe = Recipe.from_dict(values).resolved()
    run, task = Run.create(recipe, COMMAND), load_task(recipe.task)
    prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
    old = prepare_old(recipe, task, prepared)
    kept: dict[str, Any] = {}

    def report(metrics: Any, folder: Path | None) -> None:
        shutil.copytree(str(folder), tmp_path / "last", dirs_exist_ok=True)
        kept.update(metrics)

    said = io.StringIO()
    with Progress(Console(file=said, width=400)) as progress, Listener(recipe, run, progress) as listener:
        sets = {name: OldData(place.open(), place.by) for name, place in old.retention.items()}
        data = FitData(prepared.splits["train"], prepared.splits["validation"], retention=sets)
        spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))
        fit(spec, data, FitContext(report=report, event=listener.hear))
        run.update(old_data=old.to_json(), best={"step": kept["step"], "metric": task.metric, "value": kept[task.metric]})
        trained = Trained(str(tmp_path / "last"), kept["step"], {task.metric: kept[task.metric]})
        keep_model(recipe, task, run, Session(prepared, prepared, old, trained), progress)
    run.lock().release()

    found = Run.open(run.path).manifest.get("beyond_ceiling")
    assert ("The kept model is beyond the retention ceiling: old is" in said.getvalue()) == beyond
    assert (found is not None) == beyond
    assert (kept["score"] < -1e11) == beyond
    if found:
        assert (found["set"], found["metric"], found["max_drop"]) == ("old", task.metric, 0.05)
        assert found["drop"] > 0.05
