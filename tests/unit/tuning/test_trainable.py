"""What a trial's process tells of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from support.searches import Stage
from tunesmith.runs.history import History
from tunesmith.tuning.checkpoints import place_of, steps_of
from tunesmith.tuning.job import Job
from tunesmith.tuning.trainable import TRACEBACK, Reporter, _told
from tunesmith.tuning.trials import EVENTS


def test_a_traceback_that_cannot_be_kept_hides_no_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("the loss is no number")
    told = _told(Job(0, str(tmp_path), "prepared"), error)
    assert told == {"error": f"RuntimeError: the loss is no number\n    Its traceback is in {tmp_path / TRACEBACK}"}
    (tmp_path / "file").touch()
    told = _told(Job(0, str(tmp_path / "file"), "prepared"), error)
    first, second = told["error"].splitlines()
    assert first == "RuntimeError: the loss is no number"
    assert second.startswith("    Its traceback could not be kept (")
    assert "the loss is no number" in capsys.readouterr().err


def test_a_trial_that_goes_on_counts_the_seconds_up_to_the_checkpoint_that_it_goes_on_from(stage: Stage) -> None:
    job, recipe = Job(0, str(stage.folder), "prepared"), stage.recipe()
    events = History(str(stage.folder / EVENTS))
    for step, seconds in ((10, 100.0), (20, 200.0), (30, 300.0)):
        events.append({"time": seconds, "split": "train", "step": step, "epoch": 1.0})
    reporter = Reporter(job, recipe)
    assert reporter.spent_until(None) == 300
    reporter.hear({"kind": "start", "step": 20, "steps": 40})
    assert reporter.earlier == 200
    reporter.hear({"kind": "step", "split": "train", "step": 21, "epoch": 1.0})
    assert 200 <= events.read()[-1]["time"] < 210
    reporter.hear({"kind": "start", "step": 21, "steps": 40})
    assert reporter.earlier == 200, "its workers began again, which is no other attempt"
    again = Reporter(job, recipe)
    again.hear({"kind": "start", "step": 0, "steps": 40})
    assert again.earlier == 0, "from the base model"


def test_a_trial_goes_on_after_an_undefined_evaluation_of_its_own(stage: Stage) -> None:
    recipe = stage.recipe().with_values(
        {"training.metric_for_best_model": "precision/spam", "training.greater_is_better": True}
    )
    events = History(str(stage.folder / EVENTS))
    for step, value in ((10, math.nan), (20, 0.5)):
        events.append({"time": 1.0, "split": "validation", "step": step, "epoch": 1.0, "precision/spam": value})
    reporter = Reporter(Job(0, str(stage.folder), "prepared"), recipe)
    reporter.hear({"kind": "start", "step": 20, "steps": 40})
    assert reporter._scores == {10: -math.inf, 20: 0.5}


def test_an_evaluation_of_workers_elsewhere_counts_with_its_checkpoint(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import tune

    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", told.append)
    reporter = Reporter(Job(0, str(stage.folder), "prepared"), stage.recipe())
    place = Path(place_of(str(stage.folder), 5))
    reporter.follow({"kind": "start", "step": 0, "steps": 40})
    reporter.follow({"kind": "eval", "split": "validation", "step": 5, "epoch": 1.0, "accuracy": 0.75})
    assert not told, "were it stopped now, it could not win"
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"12345")
    reporter.follow({"kind": "checkpoint", "step": 5, "score": 0.7})
    (one,) = told
    assert (one["report"]["step"], one["report"]["score"], one["report"]["metrics"]) == (5, 0.7, {"accuracy": 0.75})
    assert one["bytes"] == 5
    assert steps_of(str(stage.folder)) == [5]
    reporter.follow({"kind": "checkpoint", "step": 7})
    assert len(told) == 1, "one between two evaluations"
