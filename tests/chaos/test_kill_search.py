"""Whatever of a search is killed, it goes on: a trial from its checkpoint, the whole from its ledger."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from support.commands import Command, tunesmith
from support.data import texts
from support.models import tiny_bert
from tunesmith.runs import Run
from tunesmith.tuning.checkpoints import steps_of
from tunesmith.tuning.trials import Ledger, Trial

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

TRIALS = 4


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of four trials, one at a time, each long enough to be killed in."""
    folder = tmp_path_factory.mktemp("project")
    tiny_bert(folder / "base", dropout=0.1, hidden=64, layers=2)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(600, longest=40))
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "reviews.csv"},
        "training": {"num_train_epochs": 6, "learning_rate": 1e-3},
        "search": {
            "space": {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}},
            "algorithm": "random",
            "scheduler": "none",
            "num_samples": TRIALS,
            "max_concurrent_trials": 1,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def trials_of(folder: Path) -> list[Trial]:
    return Ledger(str(folder)).read()


def judged(folder: Path, number: int, evaluations: int) -> bool:
    """Whether a trial was judged so often, and has not ended."""
    found = [trial for trial in trials_of(folder) if trial.number == number]
    return bool(found) and found[0].status == "running" and len(found[0].reports) >= evaluations


def without_times(trial: Trial) -> dict[str, Any]:
    scores = [(report.step, report.score) for report in trial.reports]
    return {"number": trial.number, "values": dict(trial.values), "status": trial.status, "scores": scores}


def trial_process(command: Command) -> psutil.Process:
    """The process in which trials run."""
    titles = {one: " ".join(one.cmdline()) for one in command.descendants()}
    found = [one for one, title in titles.items() if title.startswith(("ray::ImplicitFunc", "ray::train_trial"))]
    assert found, "\n".join(title[:60] for title in titles.values())
    return found[0]


def test_a_killed_trial_and_a_killed_driver_change_nothing_of_what_comes_out(project: Path) -> None:
    code, output = tunesmith("tune", "recipe.yaml", "--run", "runs/whole", folder=project, timeout=600)
    assert code == 0, output
    place = project / "runs" / "killed"
    arguments = ["tune", "recipe.yaml", "--run", str(place)]
    with Command(*arguments, folder=project) as command:
        command.wait_until(lambda: judged(place, 1, 2), "two evaluations of trial 1")
        os.kill(trial_process(command).pid, signal.SIGKILL)
        command.wait_until(lambda: judged(place, 2, 2), "two evaluations of trial 2")
        command.kill()
        first = command.output
    assert "The process of trial 1 died; it goes on from its last checkpoint" in first
    assert "Traceback" not in first
    assert Run.open(place).status == "interrupted"
    ended = {trial.number: trial for trial in trials_of(place) if trial.status == "done"}
    assert sorted(ended) == [0, 1]
    left = steps_of(str(place / "trials" / "0002"))
    assert left, "trial 2 has a checkpoint to go on from"

    code, output = tunesmith(*arguments, folder=project, timeout=600)
    assert code == 0, output
    assert f"Going on with {place}" in output
    after = trials_of(place)
    assert {trial.number: trial for trial in after if trial.number in ended} == ended, "finished trials are not repeated"
    whole = trials_of(project / "runs" / "whole")
    assert [without_times(trial) for trial in after] == [without_times(trial) for trial in whole]
    lines = [json.loads(line) for line in (place / "trials.jsonl").read_text().splitlines()]
    told = [line["report"]["step"] for line in lines if line["number"] == 2 and "report" in line]
    assert len(told) == len(set(told)), "no epoch of trial 2 was trained twice"
    assert Run.open(place).metrics == Run.open(project / "runs" / "whole").metrics
