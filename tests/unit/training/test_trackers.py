"""The trackers are the real ones: what was written is read back with their own clients."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import UserError
from tunesmith.training.trackers import MLflow, Outcome, TensorBoard, Tracker, open_trackers

# MLflow and TensorBoard warn of what they use themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

PARAMS = {"task": "text-classification", "training.learning_rate": 5e-5, "data.train": "x" * 2000}


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty MLflow store in a file, and a client that looks into it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient

    return MlflowClient()


def points(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


@pytest.mark.timeout(240)
def test_mlflow_has_metrics_and_recipe_and_a_resumed_run_goes_on_in_it(mlflow_store: Any, tmp_path: Path) -> None:
    tracker = open_trackers(["mlflow"], "digits-1", str(tmp_path / "run"), PARAMS)
    tracker.log({"loss": 1.0, "validation/recall@5": 0.5, "note": "text", "roc_auc": None, "bad": float("nan")}, 10)
    tracker.log({"loss": 0.5}, 20)
    tracker.log({"loss": 0.7}, 20)  # a worker died after this step, which is made again
    tracker.close("interrupted")
    experiment = mlflow_store.get_experiment_by_name("tunesmith")
    (found,) = mlflow_store.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("digits-1", "KILLED")
    assert found.data.params["training.learning_rate"] == "5e-05"
    assert set(found.data.metrics) == {"loss", "validation/recall_5"}

    again = open_trackers(["mlflow"], "digits-1", str(tmp_path / "run"), PARAMS)
    again.log({"loss": 0.5}, 20)
    again.log({"loss": 0.25}, 30)
    again.close()
    (found,) = mlflow_store.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert points(mlflow_store, found.info.run_id, "loss") == [(10, 1.0), (20, 0.5), (30, 0.25)]


@pytest.mark.usefixtures("mlflow_store")
@pytest.mark.timeout(240)
def test_a_run_that_was_deleted_from_mlflow_begins_anew(mlflow_store: Any, tmp_path: Path) -> None:
    first = MLflow("digits-1", str(tmp_path / "run"), PARAMS)
    mlflow_store.delete_run(first.run_id)
    assert MLflow("digits-1", str(tmp_path / "run"), PARAMS).run_id != first.run_id


@pytest.mark.timeout(240)
def test_an_mlflow_server_that_is_not_there_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="mlflow cannot be opened"):
        open_trackers(["mlflow"], "digits-1", str(tmp_path), PARAMS)


def scalars(place: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(place)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_has_every_step_once_after_a_resume(tmp_path: Path) -> None:
    tracker = open_trackers(["tensorboard"], "digits-1", str(tmp_path), PARAMS)
    tracker.log({"train/loss": 1.0, "learning_rate": 0.5}, 10)
    tracker.log({"train/loss": 0.5}, 20)
    tracker.close("failed")
    again = open_trackers(["tensorboard"], "digits-1", str(tmp_path), PARAMS)
    again.log({"train/loss": 0.5}, 20)
    again.log({"train/loss": 0.25}, 30)
    again.close()
    assert scalars(tmp_path / "tensorboard") == {
        "train/loss": [(10, 1.0), (20, 0.5), (30, 0.25)],
        "learning_rate": [(10, 0.5)],
    }


def test_several_trackers_get_the_same(tmp_path: Path) -> None:
    both = Tracker({"a": TensorBoard("r", str(tmp_path / "a"), {}), "b": TensorBoard("r", str(tmp_path / "b"), {})})
    both.log({"loss": 0.5}, 1)
    both.close()
    assert scalars(tmp_path / "a" / "tensorboard") == scalars(tmp_path / "b" / "tensorboard") == {"loss": [(1, 0.5)]}


class Unplugged:
    """A tracker whose server goes away after the first step."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def last_steps(self) -> Mapping[str, int]:
        return {}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if self.got:
            raise ConnectionError("the server is gone")
        self.got.append(step)

    def close(self, outcome: Outcome) -> None:
        raise ConnectionError("still gone")


def test_a_tracker_that_fails_does_not_stop_training(caplog: pytest.LogCaptureFixture) -> None:
    backend = Unplugged()
    tracker = Tracker({"mlflow": backend})
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            tracker.log({"loss": 1.0}, step)
        tracker.close()
    assert backend.got == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow failed and gets no more metrics of this run: the server is gone"
    ]


def test_no_tracker_is_fine(tmp_path: Path) -> None:
    tracker = open_trackers([], "r", str(tmp_path), {})
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_brings_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tracker 'mlfow'[^→]*→ did you mean mlflow\?"):
        open_trackers(["mlfow"], "r", str(tmp_path), {})


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wandb needs the package wandb\.\n    → pip install wandb"):
        open_trackers(["wandb"], "r", str(tmp_path), {})
