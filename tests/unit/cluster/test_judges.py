"""What a worker says of an error reaches the user in the project's own form."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from tunesmith.cluster.judges import failure
from tunesmith.errors import ClusterError, TunesmithError


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("part", "Traceback (most recent call last):\n  …\nits last line", error)


def test_our_own_error_is_told_as_it_is() -> None:
    error = ClusterError("a node does not see the data\n    → share it")
    assert failure(raised(error)) is error


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_any_other_error_is_told_by_its_first_line(kind: type[Exception]) -> None:
    said = failure(raised(kind("\nCUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA")))
    assert type(said) is TunesmithError
    first, fix = str(said).splitlines()
    assert first == f"a worker failed while it judged: {kind.__name__}: CUDA error: an illegal memory access"
    assert fix.startswith("    → ")
    assert "--debug" in fix


def test_an_error_without_a_text_is_told_by_its_kind() -> None:
    assert str(failure(raised(KeyError()))).startswith("a worker failed while it judged: KeyError\n")
