from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunesmith.errors import UserError
from tunesmith.verbs.runs import best_first, command

from .conftest import MakeRun


@pytest.fixture(autouse=True)
def _three(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run("first", 0.7, created="2030-01-01T00:00:00+00:00")
    make_run("second", 0.9, created="2030-01-02T00:00:00+00:00")
    make_run("third", 0.8, created="2030-01-03T00:00:00+00:00", status="failed", metrics={})


def run(*arguments: str) -> str:
    done = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def names(*arguments: str) -> list[str]:
    return [record["name"] for record in json.loads(run("--json", *arguments))]


def test_runs_are_listed_newest_first_with_status_and_verdict() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith.cli", "runs"], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["RUN", "STATUS", "TASK", "CREATED", "STEPS", "VERDICT"]
    assert [line.split()[:2] for line in lines[1:]] == [["third", "failed"], ["second", "done"], ["first", "done"]]
    assert lines[2].endswith("1,250  accuracy 0.900 (0.850 to 0.950, n 1,200)")
    assert "\x1b" not in done.stdout


def test_filters_choose() -> None:
    assert names("accuracy>0.75") == ["second"]
    assert names("--status", "failed") == ["third"]
    assert names("--task", "image-classification") == []
    assert names("--limit", "2") == ["third", "second"]


def test_sorting_is_best_first_and_knows_what_less_is_better() -> None:
    assert names("--sort", "accuracy") == ["second", "first", "third"]


def test_an_unknown_metric_brings_the_nearest(make_run: MakeRun) -> None:
    one, two = make_run("a", metrics={"log_loss": 0.3}), make_run("b", metrics={"log_loss": 0.2})
    assert best_first([one, two], "log_loss") == [two, one]
    with pytest.raises(UserError, match=r"none of these 2 runs has that metric\.\n    → Did you mean log_loss\?"):
        best_first([one, two], "logloss")


def test_no_runs_is_said_and_no_error(tmp_path: Path) -> None:
    assert "no runs in" in run("--output-dir", str(tmp_path / "none"))
    assert "no runs that pass in runs" in run("accuracy>0.99")


def test_listing_loads_nothing_heavy() -> None:
    code = """
import sys
from tunesmith.verbs.runs import command
command(["accuracy>0.1"], standalone_mode=False)
print(sorted({"torch", "ray", "datasets", "transformers", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
