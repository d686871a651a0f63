"""Two nodes on this machine: what they share is found out before a job starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.commands import Command
from tunesmith.cluster import preflight
from tunesmith.cluster.connect import Cluster, connect
from tunesmith.errors import ClusterError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def joined(local_cluster: Any) -> Iterator[Cluster]:
    with connect(local_cluster.address) as cluster:
        yield cluster


def test_each_node_has_its_own_resources(joined: Cluster) -> None:
    assert [(node.name, node.total["CPU"], node.head) for node in joined.nodes()] == [("node-0", 1, True), ("node-1", 1, False)]


def test_a_worker_is_not_split_over_nodes(joined: Cluster) -> None:
    preflight.check_resources(2, {"CPU": 1}, timeout=10)
    with pytest.raises(ClusterError, match="one worker must fit on one node"):
        preflight.check_resources(1, {"CPU": 2})


def test_shared_storage_passes_and_leaves_nothing(joined: Cluster, tmp_path: Path) -> None:
    preflight.preflight(2, {"CPU": 1}, storage=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_storage_that_is_not_shared_names_the_nodes(joined: Cluster) -> None:
    # Every process has its own memory:// file system.
    with pytest.raises(ClusterError, match=r"memory://runs is not shared by all nodes:\n +node-0 cannot read it") as refused:
        preflight.check_storage("memory://runs")
    assert "node-1" in str(refused.value)
    assert "→ training.output_dir=s3://" in str(refused.value)


def test_a_wrong_token_is_told_in_time(local_cluster: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    there = {**local_cluster.environment, "RAY_AUTH_TOKEN": "0" * 64}
    with Command("doctor", "--on", local_cluster.address, folder=tmp_path, environment=there) as command:
        assert command.finish(timeout=100) == 2
        assert "refused this user's token" in command.output
    assert time.monotonic() - began < 60  # of which Ray retries for 20, and PyTorch is imported
