"""A run judged by workers of a cluster: the numbers of one process, and errors as clear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from support.commands import tunesmith
from support.runs import finished_run
from tunesmith.cluster.connect import Cluster
from tunesmith.cluster.judges import Spread, judges_on_cluster
from tunesmith.data import PreparedData
from tunesmith.data.prepare import prepare
from tunesmith.errors import ClusterError, ModelError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.judges import Here
from tunesmith.evaluation.results import Evaluation
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.verbs.evaluate import evaluate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Enough rows for several batches, and a base that answers with the same labels."""
    settings = {"bootstrap_samples": 100, "slices": ["scanner"]}
    return finished_run(tmp_path_factory.mktemp("run"), "text-classification", rows=900, base_labels=True, evaluation=settings)


@pytest.fixture(scope="module")
def prepared(run: Run) -> PreparedData:
    return prepare(run.recipe, load_task(run.recipe.task), output_dir=run.recipe.training.output_dir)


@pytest.fixture(scope="module")
def two(run: Run, ray_local: Cluster) -> Iterator[Spread]:
    with judges_on_cluster(run, 2, lambda _: None) as judges:
        yield judges


def test_two_workers_give_the_numbers_of_one_process(run: Run, prepared: PreparedData, two: Spread) -> None:
    heard: list[tuple[int, int]] = []
    mine = evaluate_run(run, prepared=prepared)
    alone = pq.read_table(run.file("predictions.parquet"))
    theirs = evaluate_run(run, prepared=prepared, judges=two, progress=lambda what, done, total: heard.append((done, total)))
    together = pq.read_table(run.file("predictions.parquet"))

    assert alone.drop_columns(["loss", "probabilities", "confidence"]).equals(
        together.drop_columns(["loss", "probabilities", "confidence"])
    )
    assert np.allclose(alone["loss"].to_numpy(), together["loss"].to_numpy(), atol=1e-5)
    for name, one in mine.metrics.items():
        assert theirs.metrics[name].value == pytest.approx(one.value, abs=1e-5), name
    for name, baseline in mine.baselines.items():
        assert not theirs.baselines[name].skipped
        assert theirs.baselines[name].metrics["accuracy"].value == baseline.metrics["accuracy"].value
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (mine.n, mine.n)


def test_small_blocks_are_put_in_order(run: Run, prepared: PreparedData, two: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.evaluation.predictions.BLOCK", 11)
    split = prepared.splits["validation"]
    here = [(block.tolist(), [one["prediction"] for one in records]) for block, records in Here(run).records("model", split)]
    there = [(block.tolist(), [one["prediction"] for one in records]) for block, records in two.records("model", split)]

    assert there == here
    assert [index for block, _ in there for index in block] == list(range(len(split)))


def test_a_worker_that_dies_costs_nothing_but_time(run: Run, prepared: PreparedData, two: Spread) -> None:
    import ray

    split = prepared.splits["train"]
    expected = [one["prediction"] for _, records in Here(run).records("model", split) for one in records]
    for lost in (1, 2):  # the second time it is the last one, and another is started
        ray.kill(two._workers[0])
        found = [one["prediction"] for _, records in two.records("model", split) for one in records]
        assert found == expected, f"after {lost} lost"
    assert len(two._workers) == 1


def test_more_workers_than_fit_are_refused_by_the_option_that_asks_for_them(run: Run, ray_local: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"asked: 9 workers × \{CPU: 1\}") as refused:
        evaluate(run, on=ray_local.address, workers=9)
    assert "→ --workers 2, or add nodes" in str(refused.value)


def test_a_broken_model_is_the_users_mistake_there_too(tmp_path: Path, ray_head: object, ray_local: Cluster) -> None:
    broken = finished_run(tmp_path, "text-classification", steps=1, rows=60)
    weights = Path(broken.file("model"), "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError) as here:
        evaluate_run(broken)
    code, said = tunesmith("evaluate", broken.path, "--on", ray_local.address, folder=tmp_path)
    assert code == 2, said
    assert str(here.value).splitlines()[0] in said
    assert "Traceback" not in said


def test_the_command_judges_there_and_writes_the_same_files(run: Run, ray_local: Cluster, tmp_path: Path) -> None:
    code, said = tunesmith("evaluate", run.path, "--split", "validation", "--on", ray_local.address, folder=tmp_path)
    assert code == 0, said
    for line in ("Joining the cluster…", "Starting 1 worker…", "Judging the model"):
        assert said.count(line) >= 1, said
    folder = Path(run.path, "evaluations", "validation")
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "predictions.parquet", "report.html"}
    stored = Evaluation.from_json(json.loads((folder / "metrics.json").read_text()))
    assert stored.metrics["accuracy"].value == evaluate_run(run, split="validation").metrics["accuracy"].value
