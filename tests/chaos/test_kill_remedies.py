"""Killed in the middle with many remedies on, a training ends where it would have ended: nothing is forgotten or redone.

One recipe with every remedy that goes with the others, trained on two workers in peace, and once more where a worker is killed
in the second epoch. What does not go with them (LoRA, BitFit, the linear probe), other tasks, and a resume in a fresh process
are covered to the bit without Ray (``tests/unit/tasks/test_conformance_remedies.py``); a killed driver in ``test_kill.py``.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cases import write
from support.commands import Command, tunesmith, worker_pids
from support.data import texts
from support.killed import assert_same, resumed_after, taken
from support.models import tiny_bert
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

STEPS, BEYOND = 96, 20
"""Updates: 320 new and 64 old examples, 16 an update, four epochs; and the step of the checkpoint after which to kill."""


def recipe(folder: Path) -> dict[str, Any]:
    """Of each kind of remedy those that go together: data, sampling, loss, schedule, pull, rehearsal, averages, calibration."""
    tiny_bert(folder / "base", dropout=0.1, hidden=64, layers=3, labels=["high", "low"])
    for name, (rows, seed) in {"new": (400, 0), "old": (60, 5), "kept": (40, 6)}.items():
        write(texts(rows, seed=seed, longest=30), folder / name)
    return {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {
            "train": "new/rows.jsonl",
            "augment": [{"name": "word_dropout", "p": 0.5}, {"name": "typos", "p": 0.5}],
        },
        "training": {
            "num_workers": 2,
            "num_train_epochs": 4,
            "learning_rate": 1e-3,
            "save_steps": 10,
            "logging_steps": 4,
            "sampling": "balanced",
            "loss": "focal",
            "unfreeze": {"every_steps": 12},
            "layerwise_lr_decay": 0.8,
            "l2_sp": 0.05,
            "l2_sp_head": 0.01,
            "ema_decay": 0.95,
            "replay": {"data": "old/rows.jsonl", "share": 1 / 6},
            "wise_ft": [0.5, 1.0],
        },
        "evaluation": {"retention": {"data": "kept/rows.jsonl"}, "calibrate": "temperature"},
    }


@pytest.mark.usefixtures("ray_local")
def test_a_killed_worker_changes_nothing_of_what_the_remedies_do(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(tmp_path)))
    code, output = tunesmith("train", "recipe.yaml", "--run", "runs/peace", folder=tmp_path)
    assert code == 0, output

    place = tmp_path / "runs/killed"
    with Command("train", "recipe.yaml", "--run", "runs/killed", folder=tmp_path) as command:
        command.wait_until(lambda: taken(place / "checkpoints", BEYOND), "the checkpoint before the worker's death")
        os.kill(worker_pids(place / "train.log")[1], signal.SIGKILL)
        code = command.finish()
    assert code == 0, command.output
    (resumed,) = resumed_after(command.output)
    assert BEYOND <= resumed < STEPS, "the worker died in the middle"
    records = ("best", "trained", "old_data", "wise_ft", "calibration")
    assert_same(Run.open(place), Run.open(tmp_path / "runs/peace"), STEPS, records)
