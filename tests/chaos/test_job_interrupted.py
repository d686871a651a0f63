"""Ctrl-C leaves a job on the cluster: it goes on, and what is printed tells how to follow it."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.commands import Command
from support.data import texts
from support.models import tiny_bert
from tunesmith.runs import Run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(800)]


def test_a_training_is_followed_and_goes_on_after_ctrl_c(local_cluster: Any, tmp_path: Path) -> None:
    shared, here = tmp_path / "shared", tmp_path / "here"
    here.mkdir()
    tiny_bert(shared / "base")
    with (shared / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(300))
    training = {"num_workers": 2, "num_train_epochs": 6, "learning_rate": 3e-3, "logging_steps": 1, "save_steps": 10}
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": str(shared / "base")},
        "data": {"train": str(shared / "reviews.csv"), "split": {"validation": 0.2, "test": 0.2}},
        "training": {**training, "output_dir": str(shared / "runs")},
        "evaluation": {"baseline": False, "bootstrap_samples": 100},
    }
    (here / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    address, there = local_cluster.jobs_address, local_cluster.environment

    with Command("train", "recipe.yaml", "--on", address, folder=here, environment=there) as following:
        following.wait_until(lambda: re.search(r"^Step \d+", following.output, re.MULTILINE), "the first update")
        following.interrupt()
        assert following.finish(30) == 130
        seen = following.output
    job = re.search(r"raysubmit_\w+", seen)[0]  # type: ignore[index]
    assert seen.startswith(f"submitted to {address} as {job}\n")
    again, stop = f"ray job logs --follow {job} --address {address}", f"ray job stop {job} --address {address}"
    assert seen.rstrip().endswith(f"{job} goes on.\n    → follow it again: {again}\n    → stop it: {stop}")
    for said in ("RayTrainWorker", "Traceback", "Running entrypoint"):
        assert said not in seen

    ray = str(Path(sys.executable).parent / "ray")
    followed = subprocess.run(
        [ray, *again.split()[1:]], env={**os.environ, **there}, capture_output=True, text=True, timeout=480, check=True
    ).stdout
    judged = re.findall(r"^Step (\d+), epoch", followed, re.MULTILINE)
    assert len(judged) == len(set(judged)) == 6, followed
    assert followed.count("Preparing data…") == 1
    run = Run.open(next((shared / "runs").glob("reviews-*")))
    assert run.status == "done"
    assert run.metrics["accuracy"] is not None
    assert f"report  {run.file('report.html')}" in followed
    assert [path.name for path in here.iterdir() if not path.name.startswith("said-")] == ["recipe.yaml"]
    token = there.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN") or ""
    files = [path for path in Path(run.path).rglob("*") if path.suffix in (".json", ".log")]
    written = "".join(path.read_text(errors="replace") for path in files)
    assert not token or token not in seen + followed + written
