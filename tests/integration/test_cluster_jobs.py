"""``--on http://HEAD:8265`` is the same command on the cluster: its files, its output, its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import tunesmith

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


def test_a_sound_recipe_ends_with_0_and_a_broken_one_with_2(local_cluster: Any, project: Path) -> None:
    command = ("validate", "recipes/recipe.yaml", "--on", local_cluster.jobs_address)
    good = tunesmith(*command, cwd=project, environment=local_cluster.environment)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.startswith("✓ recipes/recipe.yaml is sound")
    assert "raysubmit_" in good.stderr
    # It exists on no node, which only the job can know.
    broken = tunesmith(*command, "data.train=/nowhere/x.csv", cwd=project, environment=local_cluster.environment)
    assert broken.returncode == 2, broken.stdout + broken.stderr
    assert "/nowhere/x.csv does not exist" in broken.stdout


def test_what_cannot_run_there_is_refused_before_it_is_sent(local_cluster: Any, project: Path) -> None:
    refused = tunesmith(
        "train", "recipes/recipe.yaml", "--on", local_cluster.jobs_address, cwd=project, environment=local_cluster.environment
    )
    assert refused.returncode == 2
    assert "→ training.output_dir=s3://" in refused.stderr
    assert "raysubmit_" not in refused.stderr


def test_a_wrong_token_is_told(local_cluster: Any, project: Path) -> None:
    environment = {**local_cluster.environment, "RAY_AUTH_TOKEN": "0" * 64}
    environment.pop("RAY_AUTH_TOKEN_PATH", None)
    refused = tunesmith("doctor", "--on", local_cluster.jobs_address, cwd=project, environment=environment)
    assert refused.returncode == 2
    assert "refused this user's token" in refused.stderr
