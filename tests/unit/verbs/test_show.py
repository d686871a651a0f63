from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tunesmith import storage
from tunesmith.runs import Run
from tunesmith.verbs.show import command, page

from .conftest import MakeRun


def test_a_finished_run_is_one_readable_page(make_run: MakeRun) -> None:
    run = make_run("digits")
    sections = {title: dict(lines) for title, lines in page(run)}
    assert sections["digits: done"]["model"] == "owner/base (at c0ffee)"
    assert sections["digits: done"]["command"] == "tunesmith train recipe.yaml"
    assert sections["Verdict on the test split"] == {
        "accuracy": "0.900 (0.850 to 0.950, n 1,200)",
        "accuracy of the majority class": "0.500 (0.450 to 0.550, n 1,200)",
    }
    assert sections["Data"] == {"train": "10,000 rows, train.csv, hash dddddddddddd", "split": "hash 555555555555"}
    assert sections["Training"]["best"] == "step 1,000, accuracy 0.9500"
    assert sections["Training"]["train"] == "1 min 15 s"
    assert "numpy" in sections["Made with"]["packages"]
    assert set(sections["Files"]) == {"folder", "metrics.json", "recipe.yaml"}


def test_an_unfinished_run_says_how_to_go_on(make_run: MakeRun) -> None:
    run = make_run("digits", status="interrupted", metrics={})
    sections = {title: dict(lines) for title, lines in page(run)}
    assert "resumes" in sections["digits: interrupted"]["go on"]
    assert set(sections["Verdict on the test split"]) <= {"accuracy of the majority class"}


def test_a_run_with_a_bare_manifest_can_be_shown(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "old" / "manifest.json", "{}")
    assert [title for title, _ in page(Run(tmp_path / "old"))] == ["old: interrupted", "Training", "Files"]


def test_the_command_prints_a_page_or_json(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("digits")
    runs = str(tmp_path / "runs")
    plain = CliRunner().invoke(command, ["latest", "--output-dir", runs], catch_exceptions=False)
    assert plain.output.splitlines()[0] == "digits: done"
    told = json.loads(CliRunner().invoke(command, ["dig", "--output-dir", runs, "--json"], catch_exceptions=False).output)
    assert told["manifest"]["steps"] == 1250
    assert told["verdict"]["test"]["metrics"]["accuracy"]["value"] == 0.9
    assert told["recipe"]["task"] == "text-classification"
