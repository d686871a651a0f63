"""A run over real sites that has ended is not asked for once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith_federated import deployed
from tunesmith_federated.server_app import EVENTS, OUTCOME, Job

pytestmark = pytest.mark.unit


def ended(folder: Path, job: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / OUTCOME).write_text(json.dumps({"job": job, "state": {"labels": ["a", "b"]}}), encoding="utf-8")
    event = json.dumps({"kind": "note", "message": "told"}) + "\n"
    (folder / EVENTS).write_text(event * 2, encoding="utf-8")
    submitted = {"run": 1, "federation": "fed", "heard": len(event)}
    (folder / deployed.SUBMITTED).write_text(json.dumps(submitted), encoding="utf-8")


def test_what_a_job_ended_with_is_told_again_without_its_sites(tmp_path: Path) -> None:
    ended(tmp_path / "job", "j1")
    told: list[Any] = []
    for _ in range(2):
        state = deployed.follow(
            tmp_path / "job", str(tmp_path / "no-federation"), Job("j1", "recipe.yaml", 1, 1.0), told.append
        )
        assert state == {"labels": ["a", "b"]}
    assert [one["message"] for one in told] == ["told"]


def test_another_jobs_outcome_is_none_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Submitted(Exception):
        pass

    def attached(folder: Path, federation: str) -> tuple[int, int]:
        assert not (folder / OUTCOME).exists()
        raise Submitted

    monkeypatch.setattr(deployed, "_attached", attached)
    ended(tmp_path / "job", "j1")
    with pytest.raises(Submitted):
        deployed.follow(tmp_path / "job", "fed", Job("j2", "recipe.yaml", 1, 1.0), print)
