"""A rollout is changed as long as it is the one that was meant, and what has been accepted is waited for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from tunesmith.errors import UserError
from tunesmith.recipe.serving import ServingSection
from tunesmith_serving import change
from tunesmith_serving.change import Situation
from tunesmith_serving.record import Record, chosen, write
from tunesmith_serving.rollout import Rollout

pytestmark = pytest.mark.unit


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What the door of a service is asked, which has version 2 of ``m`` beside 1, as the rollout ``now``."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = ServingSection(timeout_s=40).model_dump()
    models = [{"name": "m", "version": one, "folder": f"runs/{one}/model", "settings": settings} for one in "12"]
    there = Situation({"models": models, "rollouts": {"m": Rollout("2", "canary", 10.0, "now").plain()}}, {}, {})
    said: list[tuple[Any, ...]] = []

    @contextlib.contextmanager
    def joined(record: Record) -> Iterator[tuple[float, float]]:
        yield 1.0, 0.0

    monkeypatch.setattr(change, "_joined", joined)
    monkeypatch.setattr(change, "_situation", lambda: contextlib.nullcontext(there))
    monkeypatch.setattr(change, "_ask", lambda *given, within=0.0: said.append(given))
    monkeypatch.setattr(serve, "delete", lambda name: None)
    return said


RECORD = Record("http://127.0.0.1:7001", os.getpid(), None, ("m@1", "m@2"), "", 1.0)


@pytest.mark.parametrize("verb", [change.update, change.promote])
def test_what_a_gate_has_judged_is_changed_and_no_other_rollout(verb: Any, asked: list[tuple[Any, ...]]) -> None:
    with pytest.raises(UserError, match="is another one since the gate was judged"):
        verb(RECORD, "m", judged="before")
    assert asked == []
    verb(RECORD, "m", judged="now")
    assert asked[0][0] == "change"


def test_the_gate_of_a_version_that_is_gone_is_not_shown_any_more(asked: list[tuple[Any, ...]]) -> None:
    write(replace(RECORD, gates={"m@1": "gate.yaml", "m@2": "gate.yaml"}, gate_files={"m": {"let in": "gate.yaml"}}))
    change.rollback(RECORD, "m")
    now = chosen(7001)
    assert (list(now.gates), list(now.gate_files), now.models) == (["m@1"], ["m"], ("m@1",))


def test_a_request_has_its_time_for_the_body_and_again_for_the_answer(asked: list[tuple[Any, ...]]) -> None:
    change.promote(RECORD, "m")
    assert asked[1] == ("settled", "m", "1", 85.0)
