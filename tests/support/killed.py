"""What a training that was killed and went on must share with one that was not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.commands import learning
from tunesmith.runs import Run


def taken(checkpoints: Path, step: int) -> bool:
    """Whether Ray Train has taken note of the checkpoint of this step, or a later one: only then training goes on from it."""
    note = checkpoints / "checkpoint_manager_snapshot.json"
    return note.exists() and any(int(found) >= step for found in re.findall(r"step-(\d{8})", note.read_text()))


def resumed_after(output: str) -> list[int]:
    """The steps after which training went on, in the order of the restarts."""
    return [int(step) for step in re.findall(r"Resuming after step (\d+) of", output)]


def assert_same(run: Run, reference: Run, steps: int, records: tuple[str, ...] = ("best",)) -> None:
    """That two runs learned the same in so many updates and are judged the same; these records of the manifest agree too."""
    assert run.status == "done"
    folders = [Path(one.file("model")) for one in (run, reference)]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.safetensors")) for folder in folders]
    assert files[0] == files[1] != []
    for file in files[0]:
        mine, theirs = (load_file(folder / file) for folder in folders)
        assert mine.keys() == theirs.keys()
        for name, tensor in theirs.items():
            np.testing.assert_allclose(mine[name], tensor, rtol=0, atol=1e-6, err_msg=f"{file}: {name}")
    assert [(line["split"], line["step"]) for line in run.history] == [(one["split"], one["step"]) for one in reference.history]
    for line, other in zip(learning(run.history), learning(reference.history), strict=True):
        assert line == pytest.approx(other, abs=1e-6, nan_ok=True)
    assert run.metrics == pytest.approx(reference.metrics, abs=1e-6)
    assert run.manifest["steps"] == reference.manifest["steps"] == steps
    for name in records:
        assert name in reference.manifest
        assert_close(run.manifest[name], reference.manifest[name], name)


def assert_close(one: Any, other: Any, where: str) -> None:
    """Plain data that says the same, numbers to within 1e-6."""
    if isinstance(other, dict):
        assert list(one) == list(other), where
        for key, value in other.items():
            assert_close(one[key], value, f"{where}.{key}")
    elif isinstance(other, list):
        assert len(one) == len(other), where
        for index, value in enumerate(other):
            assert_close(one[index], value, f"{where}[{index}]")
    elif isinstance(other, float):
        assert one == pytest.approx(other, abs=1e-6), where
    else:
        assert one == other, where
