"""``tunesmith auto`` measures the machine that trains, or says that it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.verbs.auto import _speed


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_this_machine_is_measured_once_for_a_recipe_and_anew_where_that_is_replaced(tmp_path: Path) -> None:
    place = tmp_path / "auto.yaml"
    place.write_text("# A trial's part of this machine was taken to make 1.2e+03 products and sums a second.")
    assert _speed(place, False, None) == 1200
    assert (_speed(place, True, None) or 0) > 1e6
    assert (_speed(tmp_path / "none.yaml", False, "local") or 0) > 1e6


def test_this_machine_is_not_measured_for_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _speed(tmp_path / "none.yaml", False, "head:6379") is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert _speed(tmp_path / "none.yaml", False, None) is None, "a job, or a cluster by the variable"
