"""Killed in the middle with many remedies on, a training ends where it would have ended: nothing is forgotten or redone.

BitFit and the linear probe are killed and resumed without Ray only (``tests/unit/tasks/test_conformance_remedies.py``).

Each recipe is trained once in peace; once more, where a worker is killed in epoch 2 and the driver in epoch 3 (with all of Ray,
or told to end); and then by the same command to its end.
"""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cases import write
from support.commands import Command, tunesmith, worker_pids
from support.data import pictures, texts
from support.killed import assert_same, resumed_after, taken
from support.models import tiny_bert, tiny_vit
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

TRAINING = {"num_workers": 2, "num_train_epochs": 4, "learning_rate": 1e-3, "save_steps": 10, "logging_steps": 5}
"""With 480 examples and 16 an update, 30 updates an epoch; a checkpoint in the middle of each."""


@dataclass(frozen=True)
class Case:
    """A recipe, and what it must leave beside the model."""

    make: Callable[[Path], dict[str, Any]]
    records: tuple[str, ...]
    """Of the manifest, in which both runs must agree."""
    steps: int = 120
    worker_at: int = 40
    """The step of the checkpoint after which a worker is killed."""
    driver_at: int = 70
    """The same for the driver."""
    killed: bool = True
    """Whether the driver is killed with all of Ray; else it is told to end (SIGTERM)."""


def adapters(folder: Path) -> dict[str, Any]:
    """LoRA, balanced sampling, a focal loss, EMA, replay, retention, mixup and crops, on images."""
    tiny_vit(folder / "base", dropout=0.1, side=32, layers=3, hidden=96, spread=0.1)
    rows = pictures(720, side=32)
    rare = [row for row in rows if row["label"] != "se"] + [row for row in rows if row["label"] == "se"][:24]
    for name, part in {"new": rare, "old": pictures(60, seed=5, side=32), "kept": pictures(60, seed=6, side=32)}.items():
        write(part, folder / name)
    return {
        "name": "pictures",
        "task": "image-classification",
        "model": {"model_name_or_path": "base"},
        "data": {
            "train": "new/rows.jsonl",
            "max_train_samples": 400,
            "augment": [{"name": "crop", "p": 0.5}, {"name": "mixup", "p": 0.5}],
        },
        "training": {
            **TRAINING,
            "adaptation": "lora",
            "lora": {"lora_dropout": 0.1},
            "sampling": "balanced",
            "loss": "focal",
            "loss_args": {"gamma": 1.5},
            "ema_decay": 0.95,
            "replay": {"data": "old/rows.jsonl", "share": 1 / 6},
        },
        "evaluation": {"retention": {"data": "kept/rows.jsonl"}},
    }


def reviews(folder: Path) -> None:
    """A BERT with dropout and 600 reviews, 480 of them to train on."""
    tiny_bert(folder / "base", dropout=0.1, hidden=128, layers=4)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(600, longest=40))


def whole(folder: Path) -> dict[str, Any]:
    """Gradual unfreezing, rates by layer, L2-SP, WiSE-FT and calibration, on texts."""
    reviews(folder)
    return {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "reviews.csv"},
        "training": {
            **TRAINING,
            "unfreeze": {"every_steps": 15},
            "layerwise_lr_decay": 0.8,
            "l2_sp": 0.05,
            "l2_sp_head": 0.01,
            "wise_ft": [0.5, 0.75, 1.0],
        },
        "evaluation": {"calibrate": "temperature"},
    }


CASES = {
    "adapters": Case(adapters, ("best", "trained", "old_data")),
    "whole": Case(whole, ("best", "trained", "wise_ft", "calibration"), killed=False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_killed_worker_and_a_killed_driver_change_nothing(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(case.make(tmp_path)))
    code, output = tunesmith("train", "recipe.yaml", "--run", "runs/peace", folder=tmp_path)
    assert code == 0, output
    reference = Run.open(tmp_path / "runs/peace")

    place, arguments = tmp_path / "runs/killed", ["train", "recipe.yaml", "--run", "runs/killed"]
    with Command(*arguments, folder=tmp_path) as command:
        command.wait_until(lambda: taken(place / "checkpoints", case.worker_at), "the checkpoint before the worker's death")
        os.kill(worker_pids(place / "train.log")[1], signal.SIGKILL)
        command.wait_until(lambda: resumed_after(command.output), "the restart")
        command.wait_until(lambda: taken(place / "checkpoints", case.driver_at), "the checkpoint before the driver's death")
        if not case.killed:
            command.terminate()
            assert command.finish(60) == 143, command.output
            assert command.output.endswith(f"terminated\nThe same command goes on with {arguments[-1]}\n")
            assert "SIGTERM" not in command.output, "Ray's stack is on the screen"
        command.kill()
        killed = command.output
    assert Run.open(place).status == "interrupted"
    assert case.worker_at <= resumed_after(killed)[-1] < case.driver_at, "the worker died in the middle"

    code, output = tunesmith(*arguments, folder=tmp_path)
    assert code == 0, output
    assert case.driver_at <= resumed_after(output)[-1] < case.steps, "the driver died in the middle"
    assert_same(Run.open(place), reference, case.steps, case.records)
