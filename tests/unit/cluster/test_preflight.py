"""Whether workers fit is known at once, and the message says what to write instead."""

from __future__ import annotations

import pytest

from tunesmith.cluster import preflight
from tunesmith.cluster.nodes import Node


def node(name: str = "head", free: dict[str, float] | None = None, **total: float) -> Node:
    return Node(id=name, name=name, total=total, free=total if free is None else free)


@pytest.mark.parametrize(
    ("nodes", "worker", "expected"),
    [
        ([{"CPU": 2}], {"CPU": 1}, [2]),
        ([{"CPU": 3}, {"CPU": 1}], {"CPU": 2}, [1, 0]),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 4}], {"CPU": 2, "GPU": 1}, [1, 0]),
        ([{"CPU": 2}], {"CPU": 1, "GPU": 1}, [0]),
        ([{"CPU": 2}], {"CPU": 1, "GPU": 0}, [2]),
        ([{"CPU": 0.3}], {"CPU": 0.1}, [3]),
        ([{"CPU": 1, "memory": 2**30}], {"CPU": 0.25, "memory": 2**29}, [2]),
    ],
)
def test_a_worker_is_never_split_over_nodes(
    nodes: list[dict[str, float]], worker: dict[str, float], expected: list[int]
) -> None:
    assert preflight.room(nodes, worker) == expected


def test_too_few_cpus_names_the_number_that_fits() -> None:
    message = preflight.too_small(4, {"CPU": 1}, [node(CPU=2), node("b", CPU=1)])
    assert "asked: 4 workers × {CPU: 1}" in message
    assert "there: 2 nodes, room for 3" in message
    assert "b: {CPU: 1} → 1 worker\n" in message
    assert "→ training.num_workers=3, or add nodes" in message


def test_no_gpu_at_all_says_so_and_falls_back_to_cpus() -> None:
    message = preflight.too_small(4, {"CPU": 1, "GPU": 1}, [node(CPU=2)])
    assert "no node has a GPU" in message
    assert "head: {CPU: 2, GPU: 0} → 0 workers" in message
    assert "→ training.num_workers=2 training.use_gpu=false" in message


def test_a_worker_larger_than_any_node_is_told_to_shrink() -> None:
    message = preflight.too_small(1, {"CPU": 8}, [node(CPU=4), node("b", CPU=4)])
    assert "smaller training.resources_per_worker" in message


def test_an_unknown_resource_is_named() -> None:
    assert "no node has `accelerator_type:A100`" in preflight.too_small(
        1, {"CPU": 1, "accelerator_type:A100": 0.1}, [node(CPU=4)]
    )


def test_a_busy_cluster_is_told_from_a_small_one() -> None:
    message = preflight.too_busy(2, {"CPU": 1}, [node(free={"CPU": 1}, CPU=4)], 30)
    assert "busy: after 30 s" in message
    assert "head: {CPU: 4}, free {CPU: 1} → 1 worker" in message
    assert "training.num_workers=1 fits now" in message


def test_a_large_cluster_is_not_listed_whole() -> None:
    assert len(preflight.too_small(9999, {"CPU": 1}, [node(str(i), CPU=1) for i in range(500)]).splitlines()) < 20


def test_gpus_are_counted_over_all_nodes() -> None:
    assert preflight.detect_gpus([node(CPU=1, GPU=2), node("b", CPU=1), node("c", GPU=1)]) == 3


def test_a_node_without_tunesmith_can_tell_its_versions() -> None:
    import cloudpickle

    by_value = preflight._versions_by_value()
    assert b"tunesmith.cluster" not in cloudpickle.dumps(by_value)
    assert by_value(("pydantic", "no-such-package"))["no-such-package"] is None
