from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tunesmith.recipe import Recipe


@pytest.fixture(params=["disk", "memory"])
def output_dir(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where runs are kept: on a disk, or at a URI."""
    return str(tmp_path / "runs") if request.param == "disk" else f"memory://runs-{secrets.token_hex(4)}"


@pytest.fixture
def recipe(output_dir: str) -> Recipe:
    """A recipe whose runs go to ``output_dir``; its inputs are not there, and not looked for."""
    values = {
        "name": "digits",
        "task": "text-classification",
        "model": {"model_name_or_path": "owner/base"},
        "data": {"train": "/data/train.csv"},
        "training": {"output_dir": output_dir},
    }
    return Recipe.from_dict(values, check_paths=False)


@pytest.fixture
def _quick_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rival writes to a store in memory, so nobody need wait for one."""
    monkeypatch.setattr("tunesmith.runs.lock.SETTLE_SECONDS", 0.0)
