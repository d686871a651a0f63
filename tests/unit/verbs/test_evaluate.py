"""``tunesmith evaluate`` as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.runs import finished_run
from tunesmith.cli import main
from tunesmith.errors import RunError, UserError
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


def test_suites_and_their_settings_are_given_on_the_command_line(run: Run) -> None:
    settings = ["evaluation.fairness.groups=scanner", "evaluation.fairness.min_group=5"]
    arguments = ["--split", "test", "--suite", "calibration", *settings]
    done = CliRunner().invoke(command, [run.path, *arguments], catch_exceptions=False)
    assert "Fairness: Groups of scanner are farthest apart" in done.output
    assert "Calibration: The model is" in done.output
    page = Path(run.path, "evaluations", "test", "report.html").read_text(encoding="utf-8")
    assert "<h2>Fairness</h2>" in page
    assert "<h2>Calibration</h2>" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "calibraton"], "did you mean calibration"),
        (["evaluation.fairness.groups=scaner"], "Did you mean 'scanner'"),
        (["training.seed=1"], "only keys of evaluation"),
    ],
)
def test_suites_that_cannot_be_are_refused(run: Run, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(command, [run.path, *arguments], catch_exceptions=False)


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        CliRunner().invoke(command, [str(tmp_path / "nowhere")], catch_exceptions=False)


@pytest.mark.parametrize("verb", [["evaluate"], ["loadtest"], ["compare", "latest"], ["gate", "--gate", "gate.yaml"]])
def test_an_address_of_the_openai_protocol_must_say_so(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:1/v1/chat/completions"
    monkeypatch.chdir(tmp_path)
    Path("gate.yaml").write_text("rules: [{measure: n, min: 1}]")
    name, *rest = verb
    done = CliRunner().invoke(main, [name, url, *rest])
    assert done.exit_code == 2
    assert f"{url} is an address of the OpenAI protocol\n    → Write openai:http://127.0.0.1:1/v1#MODEL" in done.output


def test_the_verb_imports_nothing_heavy() -> None:
    said = "import sys, tunesmith.verbs.evaluate; print([m for m in ('torch', 'numpy', 'pyarrow', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
