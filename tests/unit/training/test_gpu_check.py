"""The parts of the check on a GPU that a CPU can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu_check import TOLERANCE, TOLERANCE_BF16, advised, furthest, main, one_update, speeds
from support.data import texts
from support.models import tiny_bert

pytestmark = pytest.mark.unit


def test_without_a_gpu_nothing_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 1
    assert "no GPU here" in capsys.readouterr().out


def test_one_update_is_compared_with_itself_and_with_bf16(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    one, again, bf16 = (
        one_update("text-classification", tmp_path / name, base, texts(64), False, **more)
        for name, more in (("a", {}), ("b", {}), ("c", {"bf16": True}))
    )
    assert furthest(one, again) <= TOLERANCE
    assert 0 < furthest(one, bf16) <= TOLERANCE_BF16


def test_the_loop_and_the_peer_are_timed_on_the_same_rows(tmp_path: Path) -> None:
    mine, other = speeds(tmp_path, tiny_bert(tmp_path / "base"), texts(64), use_gpu=False, bf16=False)
    assert mine > 0
    assert other > 0


def test_the_advice_is_read_from_the_message() -> None:
    said = "2 of them fit: set training.per_device_train_batch_size=2 training.gradient_accumulation_steps=8 (the same update)"
    assert advised(said) == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    assert advised("Not even one fits") == {}
