"""``--on http://HEAD:8265`` is the same command on the cluster: its files, its output, its exit code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.commands import Command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RECIPE = """
task: text-classification
model: {model_name_or_path: google-bert/bert-base-uncased}
data: {train: ../data/train.csv}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("text,label\ngood,yes\nbad,no\n")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def submit(cluster: Any, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The command on the cluster: its exit code, and all that it wrote here."""
    there = {**cluster.environment, **environment}
    with Command(*arguments, "--on", cluster.jobs_address, folder=folder, environment=there) as command:
        code = command.finish(timeout=120)
        return code, command.output


def test_a_sound_recipe_ends_with_0_and_a_broken_one_with_2(local_cluster: Any, project: Path) -> None:
    code, output = submit(local_cluster, project, "validate", "recipes/recipe.yaml")
    assert code == 0, output
    assert re.match(r"submitted to http://127\.0\.0\.1:\d+ as raysubmit_\w+\n✓ recipes/recipe\.yaml is sound\n", output)
    # It exists on no node, which only the job can know.
    code, output = submit(local_cluster, project, "validate", "recipes/recipe.yaml", "data.train=/nowhere/x.csv")
    assert code == 2, output
    assert "/nowhere/x.csv does not exist" in output


def test_what_cannot_run_there_is_refused_before_it_is_sent(local_cluster: Any, project: Path) -> None:
    code, output = submit(local_cluster, project, "train", "recipes/recipe.yaml")
    assert code == 2
    assert "→ training.output_dir=s3://" in output
    assert "raysubmit_" not in output


def test_a_wrong_token_is_told(local_cluster: Any, project: Path) -> None:
    code, output = submit(local_cluster, project, "doctor", RAY_AUTH_TOKEN="0" * 64)
    assert code == 2
    assert "refused this user's token" in output
