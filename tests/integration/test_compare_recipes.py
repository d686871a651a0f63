"""``tunesmith compare-recipes``: two variants of one recipe train on one Ray, and a second call trains nothing again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunesmith.verbs.compare_recipes import command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.mark.usefixtures("ray_local")
def test_two_variants_over_one_seed(project: Path, tmp_path: Path) -> None:
    arguments = [
        str(project / "recipe.yaml"),
        "--variant",
        "slow: training.learning_rate=1e-6 training.num_workers=1 training.num_train_epochs=1",
        "--out",
        str(tmp_path / "compared"),
    ]
    said = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert said.exit_code == 0, said.output

    stored = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    first, slow = stored["outcomes"]
    assert slow["changed"]["training.learning_rate"] == 1e-6
    assert slow["differences"]["accuracy"]["high"] < 0, "nothing can be learned at such a rate"
    assert first["metrics"]["accuracy"]["value"] > 0.8
    assert "the reference" in said.output
    times = [Path(run, "metrics.json").stat().st_mtime_ns for one in stored["outcomes"] for run in one["runs"]]

    again = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert times == [Path(run, "metrics.json").stat().st_mtime_ns for one in stored["outcomes"] for run in one["runs"]]
