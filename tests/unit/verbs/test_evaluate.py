"""``tunesmith evaluate`` as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.runs import finished_run
from tunesmith.errors import RunError
from tunesmith.runs import Run
from tunesmith.verbs.evaluate import command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run."""
    return finished_run(tmp_path_factory.mktemp("run"), "text-classification", evaluation={"bootstrap_samples": 100})


def test_it_prints_the_verdict_with_intervals_and_where_the_report_is(run: Run) -> None:
    done = CliRunner().invoke(command, [run.path], catch_exceptions=False)
    assert done.exit_code == 0
    assert "95 % interval" in done.output
    assert "Accuracy" in done.output
    assert "guessing" in done.output
    assert "other classes" in done.output
    assert str(Path(run.path, "report.html")) in done.output
    assert Path(run.path, "README.md").exists()


def test_another_split_gets_its_own_report_and_no_card(run: Run) -> None:
    before = Path(run.path, "README.md").stat().st_mtime_ns if Path(run.path, "README.md").exists() else 0
    done = CliRunner().invoke(command, [run.path, "--split", "train"], catch_exceptions=False)
    assert "training rows" in done.output
    assert Path(run.path, "evaluations", "train", "report.html").exists()
    assert (Path(run.path, "README.md").stat().st_mtime_ns if before else 0) == before


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        CliRunner().invoke(command, [str(tmp_path / "nowhere")], catch_exceptions=False)


def test_the_verb_imports_nothing_heavy() -> None:
    said = "import sys, tunesmith.verbs.evaluate; print([m for m in ('torch', 'numpy', 'pyarrow', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
