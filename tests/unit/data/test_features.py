"""What a task stores of an example comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tunesmith.data.features import FeatureFile, to_table
from tunesmith.data.tables import TableWriter
from tunesmith.tasks.base import Features

pytestmark = pytest.mark.unit


def made(count: int) -> list[Features]:
    rng = np.random.default_rng(0)
    return [
        Features(
            {
                "ids": rng.integers(0, 1000, size=rng.integers(0, 9)).astype(np.int32),
                "pixels": rng.integers(0, 255, size=(3, 4, 5)).astype(np.uint8),
                "boxes": rng.random((int(rng.integers(0, 4)), 4)),
                "half": rng.random(3).astype(np.float16),
                "flags": rng.random(int(rng.integers(1, 5))) > 0.5,
                "label": int(rng.integers(5)),
                "value": float(rng.random()),
            },
            length=int(rng.integers(1, 50)),
            count=int(rng.integers(0, 3)),
        )
        for _ in range(count)
    ]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FeatureFile, list[Features]]:
    monkeypatch.setattr(TableWriter, "ROWS", 7)
    features = made(40)
    with TableWriter(tmp_path / "f.arrow") as writer:
        for start in range(0, 40, 5):
            writer.write(to_table(features[start : start + 5]))
    return FeatureFile(tmp_path / "f.arrow"), features


def test_features_come_back_as_they_were_in_any_order(file: tuple[FeatureFile, list[Features]]) -> None:
    stored, features = file
    assert len(stored) == 40
    wanted = np.random.default_rng(1).permutation(40)
    for index, got in zip(wanted, stored.get(wanted), strict=True):
        expected = features[index]
        assert (got.length, got.count) == (expected.length, expected.count)
        assert list(got.values) == list(expected.values)
        for name, value in expected.values.items():
            other: Any = got.values[name]
            assert type(other) is type(value)
            np.testing.assert_array_equal(other, value)
            if isinstance(value, np.ndarray):
                assert other.dtype == value.dtype
                assert other.shape == value.shape
    assert stored.lengths.tolist() == [one.length for one in features]
    assert stored.lengths.dtype == stored.counts.dtype == np.int32


def test_arrays_are_views_of_the_file(file: tuple[FeatureFile, list[Features]]) -> None:
    stored, _ = file
    before = pa.total_allocated_bytes()
    got = stored.get(range(40))
    assert pa.total_allocated_bytes() == before
    pixels = got[3].values["pixels"]
    assert isinstance(pixels, np.ndarray)
    assert not pixels.flags.writeable


def test_an_index_out_of_range_is_refused(file: tuple[FeatureFile, list[Features]]) -> None:
    with pytest.raises(IndexError, match="0 to 39"):
        file[0].get([40])
    with pytest.raises(IndexError, match="0 to 39"):
        file[0].get([-1])


def test_examples_with_other_features_are_a_mistake_of_the_task() -> None:
    with pytest.raises(ValueError, match="differ in their features"):
        to_table([Features({"a": 1}), Features({"b": 1})])
    with pytest.raises(ValueError, match="differs in type"):
        to_table([Features({"a": np.zeros(2)}), Features({"a": np.zeros((2, 2))})])
