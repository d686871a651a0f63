"""A run that we serve is judged as in this process, its old data too, and a service that corrupts its input is found out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from support.data import texts
from support.foreign import Foreign
from support.judged import ROWS, Judge, verdict
from support.runs import finished_run
from support.served import Scripted, Service, listening
from tunesmith import cli
from tunesmith.evaluation import service as transport
from tunesmith.runs import Run
from tunesmith_serving.engine import Engine

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Of each task a run."""
    tasks = ("text-classification", "image-classification", "token-classification")
    settings = {"bootstrap_samples": 100}
    return {task: finished_run(tmp_path_factory.mktemp("run"), task, steps=4, evaluation=settings) for task in tasks}


@pytest.mark.parametrize("task", ["text-classification", "image-classification", "token-classification"])
def test_a_run_that_we_serve_answers_as_it_does_in_this_process(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    from tunesmith.evaluation.evaluate import evaluate_run

    monkeypatch.chdir(tmp_path)
    run = runs[task]
    own = evaluate_run(run)
    served = Service(tmp_path, Engine.load(str(run.local_model()), "m"))
    with listening(served.app) as url:
        done = CliRunner().invoke(cli.main, ["evaluate", f"{url}/predict/m", "--like", run.path, "--key", served.key])
    assert done.exit_code == 0, done.output
    assert "in this process" in done.output
    (folder,) = Path(run.path, "evaluations").glob("served-m-*")
    found = verdict(str(folder))
    assert found["test"]["suites"]["parity"]["measures"]["in_process/agreement"]["value"] == 1
    for name, one in found["test"]["metrics"].items():
        assert one["value"] == pytest.approx(own.metrics[name].value, abs=1e-4), name
    beside = found["test"]["baselines"]["in process"]["differences"]
    assert beside[found["headline"]]["value"] == pytest.approx(0, abs=1e-4)
    assert pq.read_table(folder / "predictions.parquet")["id"].equals(pq.read_table(run.file("predictions.parquet"))["id"])
    assert Path(folder, "report.html").exists()


def test_old_data_is_asked_about_as_the_run_is_judged_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.evaluation.evaluate import evaluate_run

    monkeypatch.chdir(tmp_path)
    Path("old.jsonl").write_text("\n".join(json.dumps(row) for row in texts(40, seed=8)))
    settings = {"bootstrap_samples": 100, "retention": {"data": {"old": str(tmp_path / "old.jsonl")}}}
    run = finished_run(tmp_path / "made", "text-classification", steps=4, base_labels=True, evaluation=settings)
    own = evaluate_run(run).retention["old"]
    Path("gate.yaml").write_text("rules: [{measure: retention/old/drop, max: 1}, {measure: retention/old/accuracy, min: 0}]")
    served = Service(tmp_path, Engine.load(str(run.local_model()), "m"))
    with listening(served.app) as url:
        arguments = [f"{url}/v2/models/m", "--like", run.path, "--key", served.key]
        done = CliRunner().invoke(cli.main, ["evaluate", *arguments, "--suite", "retention", "--out", "judged"])
        gated = CliRunner().invoke(cli.main, ["gate", *arguments, "--gate", "gate.yaml"])
    assert done.exit_code == 0, done.output
    assert "on 40 old examples" in " ".join(done.output.split())
    found = verdict()["test"]["retention"]["old"]
    for name, one in found["differences"].items():
        assert one["value"] == pytest.approx(own.differences[name].value, abs=1e-4), name
        assert one["low"] <= one["value"] <= one["high"], name
    assert (gated.exit_code, "2 of 2 rules hold" in gated.output) == (0, True), gated.output


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Run, Scripted, list[str]]]:
    """A judged run with old data, its served model, and the arguments that judge it into ``judged``."""
    from tunesmith.evaluation.evaluate import evaluate_run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)
    Path("old.jsonl").write_text("\n".join(json.dumps(row) for row in texts(40, seed=8)))
    settings = {"bootstrap_samples": 100, "retention": {"data": {"old": str(tmp_path / "old.jsonl")}}}
    run = finished_run(tmp_path / "made", "text-classification", steps=4, base_labels=True, evaluation=settings)
    evaluate_run(run)
    engine = Engine.load(str(run.local_model()), "m")
    model = Scripted(engine.description, engine.answer)
    served = Service(tmp_path, model)
    with listening(served.app) as url:
        yield run, model, [f"{url}/v2/models/m", "--like", run.path, "--key", served.key, "--out", "judged"]


def test_a_server_that_dies_over_old_data_ends_it_and_the_same_command_goes_on(
    keeping: tuple[Run, Scripted, list[str]],
) -> None:
    _, model, arguments = keeping
    works, old = model.answers, {row["text"] for row in texts(40, seed=8)} - {row["text"] for row in ROWS}

    async def broken(examples: list[dict[str, Any]]) -> Any:
        if sum(one["text"] in old for one in examples):
            raise RuntimeError("it broke")
        return await works(examples)

    model.answers = broken
    arguments += ["--batch-size", "4", "--concurrency", "1"]
    stopped = CliRunner().invoke(cli.main, ["evaluate", *arguments])
    assert stopped.exit_code == 2, stopped.output
    assert not Path("judged/metrics.json").exists()
    model.answers = works
    done = CliRunner().invoke(cli.main, ["evaluate", *arguments])
    assert done.exit_code == 0, done.output
    assert verdict()["test"]["retention"]["old"]["skipped"] == ""


def test_old_data_that_is_gone_is_said_before_a_gate_asks_and_costs_no_verdict(
    keeping: tuple[Run, Scripted, list[str]],
) -> None:
    run, _, arguments = keeping
    Path("old.jsonl").unlink()
    Path("gate.yaml").write_text("rules: [{measure: retention/old/drop, max: 1}]")
    gated = CliRunner().invoke(cli.main, ["gate", *arguments[:-2], "--gate", "gate.yaml"])
    assert (gated.exit_code, "nothing old was judged" in " ".join(gated.output.split())) == (2, True), gated.output
    assert not list(Path(run.path).rglob("answers.jsonl"))
    done = CliRunner().invoke(cli.main, ["evaluate", *arguments])
    assert done.exit_code == 0, done.output
    assert "old.jsonl" in verdict()["test"]["retention"]["old"]["skipped"]


def test_old_data_that_nobody_names_is_told(judge: Judge, words: Foreign, runs: dict[str, Run]) -> None:
    refused = judge("--suite", "retention")
    assert (refused.exit_code, "Give --like RUN" in refused.output) == (2, True)
    bare = CliRunner().invoke(cli.main, ["evaluate", runs["text-classification"].path, "--suite", "retention"])
    assert (bare.exit_code, "names no old data" in bare.output) == (2, True)
    assert words.requests == 0


def test_a_server_with_corrupted_preprocessing_is_found_out_before_any_metric(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs["image-classification"]
    engine = Engine.load(str(run.local_model()), "m")
    preprocessing = engine.predictor.preprocessing
    monkeypatch.setitem(preprocessing.state, "mean", [0.0, 0.0, 0.0])
    served = Service(tmp_path, engine)
    with listening(served.app) as url:
        done = CliRunner().invoke(
            cli.main, ["evaluate", f"{url}/v2/models/m", "--like", run.path, "--key", served.key, "--out", "judged"]
        )
    assert done.exit_code == 0, done.output
    assert "does not answer as it should" in " ".join(done.output.split())
    parity = verdict()["test"]["suites"]["parity"]
    assert parity["measures"]["in_process/agreement"]["value"] < 1
    assert parity["measures"]["alone/agreement"]["value"] == 1
    assert parity["examples"][0]["served"] != parity["examples"][0]["other"]
    assert "does not answer as it should" in Path("judged/report.html").read_text()
