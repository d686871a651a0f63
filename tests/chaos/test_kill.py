"""Whatever is killed, training ends where it would have ended: same weights, same history, same verdict."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.commands import Command, tunesmith, worker_pids
from support.data import texts
from support.killed import assert_same, resumed_after, taken
from support.models import tiny_bert
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

PER_EPOCH = 30
"""Updates of an epoch: 480 training examples, 16 an update over both workers."""
STEPS = 4 * PER_EPOCH
BEYOND = 40
"""The step of the checkpoint after which things are killed: in epoch 2 of 4."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    output: str
    seconds: float = 0.0
    """From the signal to its end."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe for two workers, reviews, and a BERT with dropout, so that random numbers matter.

    It is large enough for an epoch to last longer than Ray Train takes to notice a checkpoint (two seconds).
    """
    folder = tmp_path_factory.mktemp("project")
    tiny_bert(folder / "base", dropout=0.1, hidden=128, layers=4)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(600, longest=40))
    training = {"num_workers": 2, "num_train_epochs": 4, "learning_rate": 1e-3, "save_steps": 10, "logging_steps": 5}
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "reviews.csv"},
        "training": {**training, "lr_scheduler_type": "cosine", "load_best_model_at_end": False},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(project: Path) -> Run:
    code, output = tunesmith("train", "recipe.yaml", "--run", "runs/uninterrupted", folder=project)
    assert code == 0, output
    return Run.open(project / "runs/uninterrupted")


def test_a_killed_worker_changes_nothing(project: Path, uninterrupted: Run) -> None:
    place = project / "runs" / "worker-killed"
    with Command("train", "recipe.yaml", "--run", "runs/worker-killed", folder=project) as command:
        command.wait_until(lambda: taken(place / "checkpoints", BEYOND), "a checkpoint of epoch 2")
        os.kill(worker_pids(place / "train.log")[1], signal.SIGKILL)
        code = command.finish()

    assert code == 0, command.output
    assert command.output.count("A worker died; training goes on from its last checkpoint") == 1
    assert resumed_after(command.output)[-1] >= BEYOND
    assert "Traceback" not in command.output
    assert "(raylet)" not in command.output, "Ray's chatter belongs into the run's log"
    assert_same(Run.open(place), uninterrupted, STEPS)


def test_a_worker_that_dies_too_often_ends_the_training_with_its_reason(project: Path) -> None:
    place = project / "runs" / "failed"
    arguments = ["train", "recipe.yaml", "training.max_failures=0", "--run", "runs/failed"]
    with Command(*arguments, folder=project) as command:
        command.wait_until(lambda: any(place.glob("checkpoints/step-*")), "the first checkpoint")
        os.kill(worker_pids(place / "train.log")[1], signal.SIGKILL)
        code = command.finish()

    assert code == 1, command.output
    said = command.output.partition("error: ")[2]
    assert said.startswith("training failed: worker 1: its process died")
    assert "→ The workers' words are in runs/failed/train.log. The same command goes on from the last checkpoint" in said
    assert "goes on from its last checkpoint" not in command.output.partition("error: ")[0]
    assert "Traceback" not in command.output
    assert Run.open(place).status == "failed"


def test_the_same_command_goes_on_after_driver_and_ray_were_killed(project: Path, uninterrupted: Run) -> None:
    place = project / "runs" / "driver-killed"
    arguments = ["train", "recipe.yaml", "--run", "runs/driver-killed"]
    with Command(*arguments, folder=project) as command:
        command.wait_until(lambda: taken(place / "checkpoints", BEYOND), "a checkpoint of epoch 2")
        command.kill()
    assert Run.open(place).status == "interrupted"

    code, output = tunesmith(*arguments, folder=project)

    assert code == 0, output
    assert f"Going on with {arguments[-1]}" in output
    assert resumed_after(output)[-1] >= BEYOND
    assert_same(Run.open(place), uninterrupted, STEPS)


@pytest.fixture(scope="module")
def interrupted(project: Path) -> Iterator[tuple[Ended, Ended]]:
    """A training that Ctrl-C ended in epoch 2, without ``--run``; and a second one on the same run, begun meanwhile."""
    arguments = ["train", "recipe.yaml", "training.output_dir=interrupted"]
    with Command(*arguments, folder=project) as command:
        command.wait_until(
            lambda: any(taken(place, BEYOND) for place in project.glob("interrupted/*/checkpoints")), "a checkpoint of epoch 2"
        )
        (place,) = project.glob("interrupted/*/checkpoints")
        # The first goes on only after the second has ended: what is tested is not who is faster.
        workers = [
            process for process in command.descendants() if process.pid in worker_pids(place.parent / "train.log").values()
        ]
        assert len(workers) == 2
        for worker in workers:
            worker.suspend()
        second = Ended(*tunesmith(*arguments, "--run", str(place.parent), folder=project, timeout=60))
        for worker in workers:
            worker.resume()
        begun = time.monotonic()
        command.interrupt()
        code = command.finish(60)
        yield Ended(code, command.output, time.monotonic() - begun), second


def test_a_run_that_is_being_written_is_refused(interrupted: tuple[Ended, Ended]) -> None:
    _, second = interrupted
    assert second.code == 2, second.output
    assert "is being written by process" in second.output
    assert "Traceback" not in second.output


def test_ctrl_c_leaves_a_run_to_go_on_with(project: Path, interrupted: tuple[Ended, Ended], uninterrupted: Run) -> None:
    ended, _ = interrupted
    assert ended.code == 130, ended.output
    assert ended.seconds < 30
    assert "Traceback" not in ended.output
    (place,) = project.glob("interrupted/reviews-*")
    assert ended.output.endswith(f"interrupted\nThe same command goes on with {place}\n")
    assert Run.open(place).status == "interrupted"

    code, output = tunesmith("train", "recipe.yaml", "training.output_dir=interrupted", folder=project)

    assert code == 0, output
    assert list(project.glob("interrupted/reviews-*")) == [place], "the run was gone on with, no other was begun"
    assert resumed_after(output)[-1] >= BEYOND
    assert_same(Run.open(place), uninterrupted, STEPS)


def test_a_run_of_another_recipe_is_refused_and_force_starts_it_over(project: Path, uninterrupted: Run) -> None:
    other = ["train", "recipe.yaml", "training.max_steps=4", "data.max_train_samples=64", "--run", uninterrupted.path]
    before = uninterrupted.manifest

    code, output = tunesmith(*other, folder=project, timeout=60)
    assert code == 2, output
    assert "is a run of another recipe" in output
    assert "training.max_steps: -1 in the run, 4 now" in output
    assert "--force" in output
    assert Run.open(uninterrupted.path).manifest == before

    code, output = tunesmith(*other, "--force", folder=project)
    assert code == 0, output
    again = Run.open(uninterrupted.path)
    assert again.manifest["steps"] == 4
    assert {line["step"] for line in again.history} == {4}
    assert "Going on with" not in output
