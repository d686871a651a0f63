"""A node of the cluster is lost in the middle of a training: it goes on where others are, and ends with the same metrics."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.commands import Command, learning, worker_pids
from support.data import texts
from support.models import tiny_bert
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

BEYOND = "step-00000040"
"""The checkpoint after which the node is killed, of 120 updates."""


@pytest.fixture(scope="module")
def three_nodes(load_cluster: Any) -> Iterator[Any]:
    """One CPU each: two workers need two nodes, and the third takes over from the one that is killed."""
    with load_cluster(nodes=3, cpus=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    tiny_bert(folder / "base", dropout=0.1, hidden=64)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(600))
    training = {"num_workers": 2, "num_train_epochs": 4, "learning_rate": 1e-3, "save_steps": 10, "logging_steps": 5}
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "reviews.csv"},
        "training": {**training, "output_dir": str(folder / "runs"), "load_best_model_at_end": False},
        "evaluation": {"baseline": False},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def nodes_of_workers(cluster: Any, log: Path) -> set[int]:
    """The nodes that the workers run on: all processes of a node are in the session that its first one leads."""
    numbers = {node.pid: node.index for node in cluster.processes}
    return {numbers[os.getsid(pid)] for pid in worker_pids(log).values()}


def test_a_killed_node_costs_time_and_nothing_else(three_nodes: Any, project: Path) -> None:
    command = ("train", "recipe.yaml", "--on", three_nodes.address, "--run")
    with Command(*command, "runs/whole", folder=project, environment=three_nodes.environment) as whole:
        assert whole.finish() == 0, whole.output
    killed = project / "runs" / "killed"
    with Command(*command, "runs/killed", folder=project, environment=three_nodes.environment) as training:
        training.wait_until(lambda: list(killed.glob(f"checkpoints/**/{BEYOND}*")), f"checkpoint {BEYOND}")
        used = nodes_of_workers(three_nodes, killed / "train.log")
        assert len(used) == 2, "two workers of one CPU each are on two nodes"
        three_nodes.kill_node(max(used))
        assert training.finish() == 0, training.output
        assert "Resuming after step" in training.output
    expected, found = Run.open(project / "runs" / "whole"), Run.open(killed)
    assert found.status == "done"
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-6)
    assert learning(found.history)[-1] == pytest.approx(learning(expected.history)[-1], abs=1e-6)
