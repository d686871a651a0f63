"""A served model is judged as a run is, whoever serves it; what its server does wrong is told, and nothing is asked twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import accuracy_score, log_loss

from support import foreign
from support.data import texts
from support.foreign import Foreign, fitted
from support.runs import finished_run
from support.served import Scripted, Service, listening
from tunesmith import cli
from tunesmith.evaluation import service as transport
from tunesmith.runs import Run
from tunesmith_serving.engine import Engine

pytestmark = pytest.mark.unit
ROWS = texts(90)
Judge = Callable[..., Result]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Foreign, str]]:
    """A foreign server, and the URL of its model."""
    made = Foreign(fitted(ROWS[:40]))
    with listening(made.app) as url:
        yield made, f"{url}/v2/models/words"


@pytest.fixture
def words(server: tuple[Foreign, str]) -> Foreign:
    """The server without a fault, and nothing asked."""
    made = server[0]
    made.fault, made.upper, made.logits, made.numbers, made.seconds, made.requests = None, False, False, False, 0.0, 0
    made.column, made.refuses = False, set()
    made.asked.clear()
    return made


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[Foreign, str], words: Foreign) -> Judge:
    """``tunesmith evaluate URL …`` over 50 texts, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[40:]))
    mapping(words)
    arguments = ["--data", "data.jsonl", "--target", "target.yaml", "--out", "judged"]
    return lambda *more: CliRunner().invoke(cli.main, ["evaluate", server[1], *arguments, *more])


def mapping(words: Foreign, **changes: Any) -> None:
    """Writes ``target.yaml``."""
    told = {
        "task": "text-classification",
        "labels": words.labels,
        "inputs": {"text": {"name": "document"}},
        "outputs": {"label": {"name": "verdict"}, "probabilities": {"name": "odds"}},
    }
    Path("target.yaml").write_text(json.dumps({**told, **changes}))


def verdict(folder: str = "judged") -> dict[str, Any]:
    return dict(json.loads(Path(folder, "metrics.json").read_text()))


def test_a_server_of_others_is_judged_by_the_same_metrics(judge: Judge, words: Foreign) -> None:
    done = judge("--batch-size", "7", "--concurrency", "3")
    assert done.exit_code == 0, done.output
    truth, said = [row["label"] for row in ROWS[40:]], words.model.predict([row["text"] for row in ROWS[40:]])
    found = verdict()["test"]["metrics"]
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(truth, said))
    chances = words.model.predict_proba([row["text"] for row in ROWS[40:]])
    assert found["log_loss"]["value"] == pytest.approx(log_loss(truth, chances, labels=words.labels))
    assert found["accuracy"]["low"] < found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert "alone as in a batch" in done.output
    assert verdict()["test"]["suites"]["parity"]["measures"]["agreement"]["value"] == 1
    assert sorted(path.name for path in Path("judged").iterdir()) == [
        "answers.jsonl",
        "metrics.json",
        "predictions.parquet",
        "report.html",
        "terms.json",
    ]
    page = Path("judged/report.html").read_text()
    assert "Served as it should be?" in page
    assert "reproduce" not in page


def test_logits_and_numbers_of_classes_are_understood(judge: Judge, words: Foreign) -> None:
    judge()
    plain = verdict()["test"]["metrics"]
    words.logits = words.numbers = True
    odds = {"name": "odds", "values": "logits"}
    mapping(words, outputs={"label": {"name": "verdict"}, "probabilities": odds})
    assert judge("--overwrite").exit_code == 0
    again = verdict()["test"]["metrics"]
    assert {name: one["value"] for name, one in again.items()} == pytest.approx(
        {name: one["value"] for name, one in plain.items()}, abs=1e-6
    )


def test_a_server_that_tells_only_labels_is_judged_by_what_they_can_say(judge: Judge, words: Foreign) -> None:
    mapping(words, outputs={"label": {"name": "verdict"}})
    done = judge()
    assert "tells no probabilities" in done.output
    assert not {"log_loss", "ece", "roc_auc", "loss", "brier"} & set(verdict()["test"]["metrics"])
    assert "accuracy" in verdict()["test"]["metrics"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (foreign.nan, r"odds|probabilities is nan"),
        (foreign.too_narrow, "gives 1 probabilities, and there are"),
        (foreign.one_missing, r"has the shape \[\d+\] for \d+ examples"),
        (foreign.other_labels, r"which is none of the \d labels.*\n.*rename"),
        (foreign.swapped, r"its largest probability stands where.*\n.*`labels:`"),
        (foreign.refusing(401, "who are you?"), "answers 401: who are you.*\n.*TUNESMITH_API_KEY"),
        (foreign.refusing(422, "no such tensor"), r"refuses every sample: no such tensor"),
        (foreign.refusing(500, "it broke"), "answers 500: it broke"),
    ],
)
def test_what_a_server_does_wrong_is_told(judge: Judge, words: Foreign, fault: Any, says: str) -> None:
    words.fault = fault
    done = judge()
    assert done.exit_code == 2, done.output
    assert re.search(says, done.output), done.output
    assert not Path("judged/metrics.json").exists()


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_for_a_while_is_asked_again(judge: Judge, words: Foreign, status: int) -> None:
    words.fault = foreign.busy(5, status)
    assert judge().exit_code == 0
    assert verdict()["test"]["n"] == 50


def test_a_server_that_is_too_slow_is_given_up(judge: Judge, words: Foreign) -> None:
    words.seconds = 2.0
    done = judge("--deadline", "1")
    assert done.exit_code == 2
    assert re.search(r"given up after \d+ attempts in 1 s: .* did not answer within 1 s", done.output)


def test_a_server_that_does_not_become_ready_is_given_up(judge: Judge, words: Foreign) -> None:
    words.fault = foreign.refusing(503, "warming up")
    done = judge("--deadline", "1")
    assert done.exit_code == 2
    assert re.search(r"given up after \d+ attempts in 1 s: .*503: warming up", done.output)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": []}, r"does not say its labels\n.*target.yaml"),
        ({"task": "text-clasification"}, "did you mean text-classification"),
        ({"outputs": {"label": {"name": "verdit"}}}, r"has no tensor 'verdit'\n.*Did you mean 'verdict'"),
        ({"outputs": {"lable": {"name": "verdict"}}}, r"has no 'lable'\n.*Did you mean label"),
        ({"inputs": {"text": {"nam": "document"}}}, r"target.yaml:1: inputs.text.nam"),
    ],
)
def test_a_target_file_that_does_not_fit_is_told(judge: Judge, words: Foreign, changes: dict[str, Any], says: str) -> None:
    mapping(words, **changes)
    done = judge()
    assert done.exit_code == 2
    assert re.search(says, done.output), done.output


def test_a_model_that_is_not_there_and_a_server_that_is_down_are_told(judge: Judge, server: tuple[Foreign, str]) -> None:
    arguments = ["--data", "data.jsonl", "--target", "target.yaml", "--deadline", "1"]
    gone = CliRunner().invoke(cli.main, ["evaluate", server[1].replace("words", "word"), *arguments])
    assert (gone.exit_code, "answers 404" in gone.output) == (2, True)
    down = CliRunner().invoke(cli.main, ["evaluate", "http://127.0.0.1:9/v2/models/words", *arguments])
    assert (down.exit_code, "cannot be reached" in down.output) == (2, True)


def test_a_finished_folder_and_one_of_something_else_are_not_mixed(judge: Judge, words: Foreign) -> None:
    judge()
    assert "holds a finished evaluation" in judge().output
    Path("judged/metrics.json").unlink()
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[30:]))
    done = judge()
    assert done.exit_code == 2
    assert "another data" in done.output
    assert judge("--overwrite").exit_code == 0


def test_killed_it_goes_on_where_it_was_with_the_same_metrics(
    judge: Judge, words: Foreign, server: tuple[Foreign, str]
) -> None:
    """SIGKILL in the middle of the samples, with several requests under way; the folder has no name of its own."""
    judge()
    whole = verdict()["test"]["metrics"]
    words.asked.clear()
    words.seconds = 0.2
    code = "from tunesmith.cli import main; main()"
    command = [sys.executable, "-c", code, "evaluate", server[1], "--data", "data.jsonl", "--target", "target.yaml"]
    command += ["--batch-size", "2", "--concurrency", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not any(log.read_bytes().count(b"\n") > 12 for log in Path("evaluations").glob("served-words-*/answers.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    finally:
        process.kill()
        process.wait(20)
    (folder,) = Path("evaluations").glob("served-words-*")
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_bytes().splitlines()[1:-1]]
    done = {ROWS[40 + line["i"]]["text"] for line in lines}
    words.seconds = 0.0
    time.sleep(0.5)  # what was under way when it was killed
    words.asked.clear()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=True)
    assert len(words.asked) == 2 * 32 + 50 - len(lines) or len(words.asked) == 2 * 32 + 50 - len(lines) - 1
    assert done
    assert "from an earlier run" in finished.stdout
    assert verdict(str(folder))["test"]["metrics"] == whole


def refusing_in(words: Foreign, asked: int) -> None:
    """The server breaks once it was asked about so many texts."""
    broken = foreign.refusing(500, "it broke")
    words.fault = lambda outputs, number: broken(outputs, number) if len(words.asked) >= asked else outputs


def test_a_suite_that_was_stopped_asks_only_what_it_has_no_answer_to(judge: Judge, words: Foreign) -> None:
    asked = ("--suite", "robustness", "--batch-size", "4", "--concurrency", "1", "evaluation.robustness.severities=[1,3]")
    assert judge(*asked).exit_code == 0
    whole, total = verdict()["test"], len(words.asked)
    stopped = 2 * 32 + 50 + 196
    assert total > stopped
    assert not Path("judged/suites.jsonl").exists()
    words.asked.clear()
    refusing_in(words, stopped)
    assert judge(*asked, "--overwrite").exit_code == 2
    assert len(words.asked) == stopped
    words.fault = None
    words.asked.clear()
    done = judge(*asked)
    assert done.exit_code == 0, done.output
    assert len(words.asked) == total - stopped + 2 * 32, "of what was answered only the parity check is asked again"
    again = verdict()["test"]
    assert again["metrics"] == whole["metrics"]
    assert again["suites"]["robustness"]["measures"] == whole["suites"]["robustness"]["measures"]


def test_a_cluster_in_the_environment_is_not_an_option(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("127.0.0.1:9", "http://127.0.0.1:9"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert judge("--overwrite").exit_code == 0
        refused = judge("--overwrite", "--on", address)
        assert (refused.exit_code, "asked from here" in refused.output) == (2, True), refused.output


def test_answers_that_were_read_by_another_mapping_are_not_kept(judge: Judge, words: Foreign) -> None:
    swapped = dict(zip(words.labels, reversed(words.labels), strict=True))
    mapping(words, outputs={"label": {"name": "verdict"}}, rename=swapped)
    refusing_in(words, 2 * 32 + 8)
    assert judge("--batch-size", "4", "--concurrency", "1").exit_code == 2
    words.fault = None
    mapping(words, outputs={"label": {"name": "verdict"}})
    refused = judge()
    assert (refused.exit_code, "with another mapping" in " ".join(refused.output.split())) == (2, True), refused.output
    assert judge("--overwrite").exit_code == 0
    right = accuracy_score([row["label"] for row in ROWS[40:]], words.model.predict([row["text"] for row in ROWS[40:]]))
    assert verdict()["test"]["metrics"]["accuracy"]["value"] == pytest.approx(right)


def test_overwriting_is_resumed_and_leaves_nothing_of_before(judge: Judge, words: Foreign) -> None:
    judge()
    words.asked.clear()
    refusing_in(words, 2 * 32 + 8)
    again = ("--overwrite", "--batch-size", "4", "--concurrency", "1")
    assert judge(*again).exit_code == 2
    assert sorted(path.name for path in Path("judged").iterdir()) == ["answers.jsonl", "terms.json"]
    words.fault = None
    words.asked.clear()
    assert judge(*again).exit_code == 0
    assert len(words.asked) == 2 * 32 + 50 - 8
    words.asked.clear()
    assert judge(*again).exit_code == 0
    assert len(words.asked) == 2 * 32 + 50, "a finished one is asked anew"


def test_a_sample_that_is_refused_is_listed_though_the_parity_check_drew_it(judge: Judge, words: Foreign) -> None:
    """Of 50 samples 32 are drawn, and eight are refused; each is told with its place."""
    bad = {ROWS[40 + k]["text"] for k in range(0, 50, 7)}
    words.refuses = bad
    done = judge()
    told = " ".join(done.output.split())
    assert done.exit_code == 2
    assert f"refuses {sum(row['text'] in bad for row in ROWS[40:])} of 50 samples" in told, done.output
    assert "data.jsonl" in told


def test_classes_by_number_may_stand_in_a_column(judge: Judge, words: Foreign) -> None:
    """Triton gives a batch of single numbers the shape [n, 1]."""
    words.numbers = words.column = True
    mapping(words, outputs={"label": {"name": "verdict"}})
    done = judge()
    assert done.exit_code == 0, done.output
    assert verdict()["test"]["n"] == 50


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
