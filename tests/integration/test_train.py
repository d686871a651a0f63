"""``tunesmith.train`` from Python on two Ray workers: the run is complete, and all its parts agree."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tunesmith
from tunesmith.data import PreparedData
from tunesmith.errors import ClusterError, UserError
from tunesmith.runs import Run
from tunesmith.runs.find import find_resumable

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

UPDATES = 30
"""Two epochs over 240 training examples, 16 an update."""


def test_the_folder_holds_everything(trained: Run) -> None:
    names = {path.name for path in Path(trained.path).iterdir()}

    assert names == {
        "recipe.yaml",
        "manifest.json",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "data",
        "predictions.parquet",
        "metrics.json",
        "report.html",
        "README.md",
        "train.log",
    }
    assert {"config.json", "model.safetensors", "tokenizer.json", "tunesmith.json"} <= {
        path.name for path in (Path(trained.path) / "model").iterdir()
    }


def test_the_history_has_every_step_once(trained: Run) -> None:
    steps = [(line["split"], line["step"]) for line in trained.history]

    assert [step for split, step in steps if split == "train"] == [1, *range(5, UPDATES + 1, 5)], "the first, then each fifth"
    assert [step for split, step in steps if split == "validation"] == [15, 30]
    assert all({"loss", "epoch", "time"} <= line.keys() for line in trained.history)


def test_it_has_learned_and_every_metric_has_its_interval(trained: Run) -> None:
    assert trained.status == "done"
    assert trained.metrics["accuracy"] is not None
    assert trained.metrics["accuracy"] > 0.8
    verdict = json.loads(Path(trained.file("metrics.json")).read_text())
    assert verdict["test"]["n"] == 100
    for name, estimate in trained.estimates.items():
        if estimate["value"] is not None:
            assert estimate["low"] <= estimate["value"] <= estimate["high"], name
            assert estimate["n"] == 100
    assert "shop" in json.dumps(verdict["test"]), "judged by slice"


def test_the_manifest_says_all_that_is_needed_to_do_it_again(trained: Run) -> None:
    manifest = trained.manifest

    assert manifest["steps"] == UPDATES
    assert manifest["workers"] == 2
    assert {name: split["rows"] for name, split in manifest["data"].items()} == {"train": 240, "validation": 60, "test": 100}
    assert all(len(split["hash"]) == 32 for split in manifest["data"].values())
    assert manifest["best"]["step"] in (15, 30)
    assert manifest["best"]["value"] == max(line["f1_macro"] for line in trained.history if line["split"] == "validation")
    assert {"prepare", "train", "evaluate"} <= manifest["durations"].keys()
    assert {"torch", "transformers", "ray"} <= manifest["packages"].keys()
    for key in (
        "tunesmith",
        "created",
        "finished",
        "command",
        "recipe_fingerprint",
        "seeds",
        "split_hash",
        "base_model",
        "hardware",
    ):
        assert manifest[key], key
    assert trained.recipe.resolved() == trained.recipe


def test_predictions_are_of_the_test_split_in_its_order(trained: Run) -> None:
    table = pq.read_table(trained.file("predictions.parquet"))
    split = PreparedData.open(trained.manifest["prepared"]).splits["test"]

    assert table["id"].to_pylist() == split.ids.to_pylist()
    assert len(set(table["id"].to_pylist())) == 100
    assert table["reference"].to_pylist() == split.rows()["label"].to_pylist()


def test_transformers_and_the_run_predict_what_was_recorded(trained: Run) -> None:
    from transformers import pipeline

    table = pq.read_table(trained.file("predictions.parquet"))
    rows = PreparedData.open(trained.manifest["prepared"]).splits["test"].rows()["text"].to_pylist()

    theirs = pipeline("text-classification", model=trained.file("model"), device="cpu")(rows, batch_size=1)
    mine = trained.predict(rows)

    assert [answer["label"] for answer in theirs] == table["prediction"].to_pylist()
    assert [answer["score"] for answer in theirs] == pytest.approx(table["confidence"].to_pylist(), abs=1e-5)
    assert [answer["label"] for answer in mine] == table["prediction"].to_pylist()


def test_the_model_knows_where_it_comes_from(trained: Run) -> None:
    artefact = json.loads((Path(trained.path) / "model" / "tunesmith.json").read_text())

    assert artefact["format"] == 1
    assert artefact["task"] == "text-classification"
    assert artefact["run"] == trained.name
    assert artefact["state"]["labels"] == ["high", "low"]
    assert artefact["base_model"]["hash"]
    assert artefact["metrics"]["f1_macro"] == trained.metrics["f1_macro"], "the verdict, not the validation"


def test_the_report_needs_nothing_beside_it(trained: Run) -> None:
    page = Path(trained.file("report.html")).read_text()

    assert "reviews" in page
    assert not re.findall(r"""<(?:script|img|link|iframe)\b[^>]*(?:src|href)=["'](?!data:)[^"'#]""", page)
    assert not re.findall(r"url\((?!['\"]?(?:data:|#))", page)


def test_ray_keeps_to_the_log(trained: Run) -> None:
    assert "RayTrainWorker" in Path(trained.file("train.log")).read_text()


@pytest.mark.usefixtures("ray_local")
def test_an_error_of_the_user_in_a_worker_reaches_the_caller_at_once(project: Path, trained: Run) -> None:
    made = Path(trained.manifest["prepared"]) / "manifest.json"
    before = made.stat().st_mtime_ns
    overrides = ["training.fp16=true", "training.max_steps=1", "training.num_workers=1"]
    runs = set((project / "runs").iterdir())

    with pytest.raises(UserError, match="this worker has none"):
        tunesmith.train(str(project / "recipe.yaml"), overrides)

    assert made.stat().st_mtime_ns == before, "the data was ready"
    for left in set((project / "runs").iterdir()) - runs:
        # Ray Train may begin one restart before it is told to end; it must not go through all that max_failures allows.
        assert (left / "train.log").read_text().count("Started training worker group") <= 2
        assert Run.open(left).status == "failed"


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("override", ["training.num_workers=64", "training.use_gpu=true"])
def test_what_the_cluster_lacks_is_said_soon(project: Path, trained: Run, override: str) -> None:
    runs = set((project / "runs").iterdir())
    begun = time.monotonic()

    with pytest.raises(ClusterError, match="too small for this run") as raised:
        tunesmith.train(str(project / "recipe.yaml"), [override])

    assert time.monotonic() - begun < 30
    assert "there: 1 node" in str(raised.value)
    assert set((project / "runs").iterdir()) == runs


def test_a_finished_run_is_not_gone_on_with(trained: Run) -> None:
    assert find_resumable(trained.recipe) is None
