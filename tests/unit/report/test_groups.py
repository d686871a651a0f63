"""What was done for groups is shown with its weights or draws, and with what the suite found where it ran."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tunesmith.data.prepare import prepare
from tunesmith.evaluation.results import Evaluation, SuiteResult
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import groups
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.verbs.recording import record_groups

pytestmark = pytest.mark.unit

COUNTS = [[60, 20], [5, 15]]


@pytest.mark.parametrize("method", ["reweigh", "balanced"])
def test_groups_are_shown_with_what_was_done(judged: tuple[Run, Evaluation], method: str) -> None:
    run, found = Run(judged[0].path), judged[1]
    assert groups.section(run, found) is None
    run.manifest["groups"] = groups.record(["sex"], method, ["f", "<m>"], ["no", "yes"], COUNTS, [50.0, 50.0])
    shown = groups.section(run, found)
    assert shown is not None
    assert "&lt;m&gt;" in shown.html
    assert ("weight 0.867" in shown.html) == (method == "reweigh")  # 65 / 100 * 80 / 60
    assert ("Drawn each epoch" in shown.html) == (method == "balanced")
    assert "evaluation.fairness.groups" in shown.html
    odds = {"equalized_odds_difference": Estimate(0.12, 0.05, 0.2, 100, "newcombe-range")}
    ran = dataclasses.replace(found, suites={"fairness": SuiteResult("Fairness", measures=odds)})
    shown = groups.section(run, ran)
    assert shown is not None
    assert "Odds difference <b>0.120</b> (0.050 to 0.200)" in shown.html


def test_a_run_records_its_groups_before_training(judged: tuple[Run, Evaluation], tmp_path: Path) -> None:
    run = Run(shutil.copytree(judged[0].path, tmp_path / "run"))
    task = load_task(run.recipe.task)
    recipe = run.recipe.override("data.groups={columns: [scanner], method: balanced}", check_paths=False)
    prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
    record_groups(recipe, task, run, prepared)
    found = Run(run.path).manifest["groups"]
    assert [one["name"] for one in found["groups"]] in (["a", "b"], ["b", "a"])
    assert sum(sum(one["rows"]) for one in found["groups"]) == len(prepared.splits["train"])
    assert {one["drawn"] for one in found["groups"]} == {len(prepared.splits["train"]) / 2}
    assert found["classes"] == prepared.state["labels"]
