"""A run that stopped after its last update, or before its verdict, is finished without training again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from support.commands import learning
from tunesmith import storage
from tunesmith.errors import RunError
from tunesmith.runs import Run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def stopped(trained: Run, tmp_path: Path) -> Path:
    """A copy of the run, stopped before it was judged."""
    place = tmp_path / "copy"
    shutil.copytree(trained.path, place)
    for name in ("metrics.json", "predictions.parquet", "report.html", "README.md"):
        (place / name).unlink()
    manifest = storage.read_json(place / "manifest.json")
    storage.write_json(place / "manifest.json", {**manifest, "status": "running"})
    return place


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(Path(run.file("model")) / "model.safetensors")


def test_a_run_that_lacks_its_verdict_gets_it_without_ray(project: Path, trained: Run, stopped: Path) -> None:
    run = tunesmith.train(str(project / "recipe.yaml"), run=str(stopped))

    assert run.status == "done"
    assert run.metrics == trained.metrics
    assert (stopped / "train.log").read_bytes() == Path(trained.file("train.log")).read_bytes()


@pytest.mark.usefixtures("ray_local")
def test_a_run_that_stopped_after_its_last_update_trains_no_further(project: Path, trained: Run, stopped: Path) -> None:
    shutil.rmtree(stopped / "model")

    run = tunesmith.train(str(project / "recipe.yaml"), run=str(stopped))

    assert run.status == "done"
    assert learning(run.history) == learning(trained.history)
    assert run.manifest["steps"] == trained.manifest["steps"]
    assert run.manifest["best"] == trained.manifest["best"]
    assert run.metrics == trained.metrics
    torch.testing.assert_close(weights(run), weights(trained), rtol=0, atol=0)


def test_a_finished_run_is_not_trained_again(project: Path, trained: Run) -> None:
    with pytest.raises(RunError, match=r"is a finished run of this recipe\n    → .* --force"):
        tunesmith.train(str(project / "recipe.yaml"), run=trained.path)


def test_a_run_of_another_recipe_is_refused_and_unchanged(project: Path, trained: Run) -> None:
    before = Path(trained.file("manifest.json")).read_bytes()

    with pytest.raises(RunError, match=r"training.seed: 42 in the run, 1 now"):
        tunesmith.train(str(project / "recipe.yaml"), ["training.seed=1"], run=trained.path)

    assert Path(trained.file("manifest.json")).read_bytes() == before
