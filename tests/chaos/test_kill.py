"""Whatever is killed, training ends where it would have ended: same weights, same history, same verdict."""

from __future__ import annotations

import csv
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.commands import Command, tunesmith, worker_pids
from support.data import texts
from support.killed import assert_same, resumed_after, taken
from support.models import tiny_bert
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

PER_EPOCH = 30
"""Updates of an epoch: 480 training examples, 16 an update over both workers."""
STEPS = 4 * PER_EPOCH
EPOCH_2, EPOCH_3, END_OF_3, EPOCH_4 = 40, 70, 90, 100
"""The steps of the checkpoints after which a worker is killed, Ctrl-C comes, SIGTERM comes, and all is killed."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int | None
    """None where it was killed."""
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


@dataclass(frozen=True)
class Story:
    """What befell one training: its worker was killed, Ctrl-C, SIGTERM, all of it was killed; then it ended in peace."""

    place: Path
    """Its run."""
    first: Ended
    """A worker died in epoch 2; Ctrl-C came in epoch 3."""
    meanwhile: Ended
    """Another command on the same run, while the first one was training."""
    second: Ended
    """SIGTERM came at the end of epoch 3."""
    third: Ended
    """The driver and all of Ray were killed in epoch 4."""
    last: Ended
    statuses: tuple[str, str, str]
    """The run's, after each of the first three commands."""


@pytest.fixture(scope="module")
def story(project: Path) -> Story:
    """The same command four times, without ``--run``."""
    arguments = ["train", "recipe.yaml", "training.output_dir=killed"]
    with Command(*arguments, folder=project) as command:
        command.wait_until(lambda: list(project.glob("killed/reviews-*/train.log")), "the run's folder")
        (place,) = project.glob("killed/reviews-*")
        command.wait_until(lambda: taken(place / "checkpoints", EPOCH_2), "a checkpoint of epoch 2")
        os.kill(worker_pids(place / "train.log")[1], signal.SIGKILL)
        command.wait_until(lambda: taken(place / "checkpoints", EPOCH_3), "a checkpoint of epoch 3")
        # The first goes on only after the other has ended: what is tested is not who is faster.
        workers = [one for one in command.descendants() if one.pid in worker_pids(place / "train.log").values()]
        assert len(workers) == 2
        for worker in workers:
            worker.suspend()
        meanwhile = Ended(*tunesmith(*arguments, "--run", str(place), folder=project, timeout=120))
        for worker in workers:
            worker.resume()
        begun = time.monotonic()
        command.interrupt()
        first = Ended(command.finish(60), command.output, time.monotonic() - begun)
    after_first = Run.open(place).status
    with Command(*arguments, folder=project) as command:
        command.wait_until(lambda: taken(place / "checkpoints", END_OF_3), "the last checkpoint of epoch 3")
        command.terminate()
        second = Ended(command.finish(60), command.output)
    after_second = Run.open(place).status
    with Command(*arguments, folder=project) as command:
        command.wait_until(lambda: taken(place / "checkpoints", EPOCH_4), "a checkpoint of epoch 4")
        command.kill()
        third = Ended(None, command.output)
    statuses = after_first, after_second, Run.open(place).status
    return Story(place, first, meanwhile, second, third, Ended(*tunesmith(*arguments, folder=project)), statuses)


def test_a_killed_worker_costs_one_line_and_training_goes_on(story: Story) -> None:
    assert story.first.output.count("A worker died; training goes on from its last checkpoint") == 1
    assert EPOCH_2 <= resumed_after(story.first.output)[-1] < EPOCH_3
    assert "Traceback" not in story.first.output
    assert "(raylet)" not in story.first.output, "Ray's chatter belongs into the run's log"


def test_a_run_that_is_being_written_is_refused(story: Story) -> None:
    assert story.meanwhile.code == 2, story.meanwhile.output
    assert "is being written by process" in story.meanwhile.output
    assert "Traceback" not in story.meanwhile.output


def test_ctrl_c_leaves_a_run_to_go_on_with(story: Story) -> None:
    assert story.first.code == 130, story.first.output
    assert story.first.seconds < 30
    assert story.first.output.endswith(f"interrupted\nThe same command goes on with {story.place}\n")
    assert story.statuses == ("interrupted",) * 3
    assert EPOCH_3 <= resumed_after(story.second.output)[-1] < END_OF_3


def test_sigterm_ends_it_in_order_too(story: Story) -> None:
    assert story.second.code == 143, story.second.output
    assert story.second.output.endswith(f"terminated\nThe same command goes on with {story.place}\n")
    assert "SIGTERM" not in story.second.output, "Ray's stack is on the screen"
    assert END_OF_3 <= resumed_after(story.third.output)[-1] < EPOCH_4


def test_whatever_was_killed_it_ends_as_if_nothing_had_been(project: Path, story: Story, uninterrupted: Run) -> None:
    assert story.last.code == 0, story.last.output
    assert f"Going on with {story.place}" in story.last.output
    assert EPOCH_4 <= resumed_after(story.last.output)[-1] < STEPS
    assert list(project.glob("killed/reviews-*")) == [story.place], "the run was gone on with, no other was begun"
    assert_same(Run.open(story.place), uninterrupted, STEPS)


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
