"""``tunesmith compare`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tunesmith
from support.runs import finished_run
from tunesmith.cli import main
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.runs import Run
from tunesmith.verbs import judged as judged_module


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two trainings of one recipe, one of them much shorter, judged on the same rows."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    settings = {"bootstrap_samples": 100, "fairness": {"groups": ["scanner"], "min_group": 10}}
    for steps, data in ((30, {"groups": {"columns": ["scanner"]}}), (1, {})):
        train = {"train": str(folder / "train.jsonl"), "split": {"validation": 0.2, "test": 0.3}, **data}
        run = finished_run(folder, "text-classification", steps=steps, rows=200, evaluation=settings, data=train)
        evaluate_run(run)
        found.append(run)
    return found[0], found[1]


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def test_it_prints_the_verdict_the_table_and_the_flips_and_writes_the_page(runs: tuple[Run, Run]) -> None:
    a, b = runs
    done = typed(a.path, b.path)
    assert done.exit_code == 0, done.output
    for text in ("A is better than B: F1 (macro)", "A - B", "95 % interval", "fixed", "exact McNemar", "comparison.html"):
        assert text in done.output
    folder = Path(a.path, "comparisons", b.name)
    assert json.loads((folder / "comparison.json").read_text())["verdict"] == "better"
    assert "A is better than B" in (folder / "comparison.html").read_text()


def test_how_groups_are_treated_stands_side_by_side(runs: tuple[Run, Run], tmp_path: Path) -> None:
    a, b = runs
    done = typed(a.path, b.path, "--out", str(tmp_path))
    assert "groups, the worst of all columns" in done.output
    found = json.loads((tmp_path / "comparison.json").read_text())["fairness"]
    suites = [json.loads(Path(run.path, "metrics.json").read_text())["test"]["suites"]["fairness"] for run in runs]
    for name in ("worst_group_accuracy", "equalized_odds_difference"):
        pair = found["measures"]["scanner"][name]
        assert [pair["a"], pair["b"]] == [suite["measures"][f"scanner/{name}"] for suite in suites]
        assert pair["difference"]["value"] == pytest.approx(pair["a"]["value"] - pair["b"]["value"])
        assert pair["difference"]["low"] <= pair["difference"]["value"] <= pair["difference"]["high"]
    assert set(found["groups"]["Groups of scanner"]) == {"a", "b"}
    assert (found["a_training"], found["b_training"]) == ("reweigh by scanner", "")
    page = (tmp_path / "comparison.html").read_text()
    for words in ("Whether groups are treated alike", "A was trained with data.groups: reweigh by scanner.", "Worst group"):
        assert words in page


def test_its_json_is_the_whole_comparison(runs: tuple[Run, Run], tmp_path: Path) -> None:
    done = typed(runs[0].path, runs[1].path, "--json", "--metric", "f1_macro", "--margin", "0.05", "--out", str(tmp_path / "x"))
    found = json.loads(done.output)
    assert (found["metrics"], found["margin"]) == (["f1_macro"], 0.05)
    assert (tmp_path / "x" / "comparison.html").exists()


def test_it_is_a_function_too(runs: tuple[Run, Run], tmp_path: Path) -> None:
    found = tunesmith.compare(runs[1].path, runs[0].path, out=str(tmp_path))
    assert found.verdict == "worse"
    assert found.measures["accuracy"].difference.high < 0


def test_the_log_of_a_shadow_is_compared_by_version(tmp_path: Path) -> None:
    line = {"id": "r", "answers": {"1": [{"label": "a", "score": 0.6}], "2": [{"label": "b", "score": 0.7}]}}
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    (tmp_path / "l.csv").write_text("id,label\nr,b\n")
    told = typed("--pairs", str(tmp_path / "p.jsonl"))
    assert "Version 2 and version 1 give the same answer to 0.0" in told.output
    assert "a → b" in told.output
    judged = typed("--pairs", str(tmp_path / "p.jsonl"), "--labels", str(tmp_path / "l.csv"), "--out", str(tmp_path / "o"))
    assert "1 fixed" in judged.output
    assert (tmp_path / "o" / "comparison.html").exists()


def test_of_several_rollouts_the_newest_is_compared_or_the_one_that_is_named(tmp_path: Path) -> None:
    """Version 2 was taken back, and another run was given its number."""
    lines = [
        {"id": of, "rollout": of, "answers": {"1": [{"label": "a"}], "2": [{"label": said}]}}
        for of, said in (("before", "b"), ("now", "a"))
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    newest = typed("--pairs", str(tmp_path / "p.jsonl")).output
    assert "the same answer to 100.0" in newest
    assert "others are left out: before" in " ".join(newest.split())
    assert "the same answer to 0.0" in typed("--pairs", str(tmp_path / "p.jsonl"), "--rollout", "before").output


def test_a_served_model_is_asked_as_gate_and_evaluate_ask_it(runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def judged(wanted: Any, **_: Any) -> Evaluation:
        asked.append((wanted.url, wanted.asking))
        return evaluate_run(runs[0])

    monkeypatch.setattr(judged_module, "evaluate_url", judged)
    url = "http://127.0.0.1:1/v2/models/m"
    options = ["--like", runs[0].path, "--concurrency", "3", "--batch-size", "5", "--deadline", "7"]
    done = typed(url, runs[1].path, *options)
    assert done.exit_code == 0, done.output
    ((place, asking),) = asked
    assert (place, asking.concurrency, asking.batch_size, asking.deadline) == (url, 3, 5, 7)
    for option in ("--concurrency", "--batch-size", "--deadline"):
        refused = typed(runs[0].path, runs[1].path, option, "3")
        assert (refused.exit_code, f"{option} is for a served model" in refused.output) == (2, True), refused.output


def test_what_cannot_be_compared_is_refused_with_2(runs: tuple[Run, Run], tmp_path: Path) -> None:
    other = evaluate_run(runs[1], split="validation").folder
    for arguments in (
        [runs[0].path],
        [runs[0].path, other],
        [runs[0].path, f"{tmp_path}/gone"],
        [runs[0].path, runs[1].path, "--labels", "x"],
    ):
        done = typed(*arguments)
        assert done.exit_code == 2, done.output
        assert "→" in done.output
