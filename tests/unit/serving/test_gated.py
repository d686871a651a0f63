"""Only what passes its gate comes into a service; what does not changes nothing, and what is let in is written down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.runs import finished_run
from tunesmith import cli
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.runs import Run
from tunesmith_serving import change, gated, record, service
from tunesmith_serving.change import Standing

pytestmark = pytest.mark.unit
Invoke = Callable[..., Result]
PORT = 7001


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has been judged."""
    run = finished_run(tmp_path_factory.mktemp("text"), "text-classification", steps=20, evaluation={"bootstrap_samples": 100})
    evaluate_run(run)
    return run


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been done to a service; no Ray starts. The service of ``m`` has a record and a log."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    happened: list[Any] = []

    def comes_in(there: record.Record, what: str, **given: Any) -> str:
        happened.append(("update", what))
        record.write(record.Record(**{**vars(there), "models": (*there.models, "m@2"), "rollouts": ("m",)}))
        return "in"

    def started(models: Any, told: Callable[[str], None], **given: Any) -> None:
        happened.append(("start", [one.name for one in models]))
        told(f"http://127.0.0.1:{PORT}")

    monkeypatch.setattr(service, "run", started)
    monkeypatch.setattr(change, "update", comes_in)
    monkeypatch.setattr(change, "promote", lambda there, name, judged=None: happened.append(("promote", judged)) or "promoted")
    log = tmp_path / f"{PORT}.jsonl"
    write(log=str(log))
    return happened


def write(**given: Any) -> None:
    about = {"url": f"http://127.0.0.1:{PORT}", "pid": os.getpid(), "on": None, "models": ("m@1",), "started": 1.0, **given}
    record.write(record.Record(**about, born=record.born(os.getpid())))


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["serve", *arguments])


def gate(measure: str = "accuracy", **limit: float) -> str:
    Path("gate.yaml").write_text(json.dumps({"rules": [{"measure": measure, **limit}]}))
    return "gate.yaml"


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{PORT}.jsonl").read_text().splitlines()]


def test_a_run_that_does_not_pass_is_not_served(done: list[Any], run: Run) -> None:
    answer = typed(f"m={run.path}", "--gate", gate(min=1.01))
    assert answer.exit_code == 3, answer.output
    assert "m@1 is not let in" in answer.output
    assert json.loads(Path(run.path, "gate", "gate.json").read_text())["passed"] is False
    assert typed(f"m={run.path}", "--gate", gate(min=1.01), "--write", "serve.yaml").exit_code == 3
    assert (done, Path("serve.yaml").exists()) == ([], False)


def test_what_passes_is_served_and_stands_in_status_and_log(done: list[Any], run: Run) -> None:
    answer = typed(f"m={run.path}", "--gate", gate(min=0.2))
    assert answer.exit_code == 0, answer.output
    assert done == [("start", ["m"])]
    (line,) = logged()
    assert {key: line[key] for key in ("event", "level", "model", "version", "passed", "let_in")} == {
        "event": "gate",
        "level": "info",
        "model": "m",
        "version": "1",
        "passed": True,
        "let_in": True,
    }
    assert "m@1: gate.yaml, 20" in typed("status").output


def test_a_version_that_does_not_pass_leaves_the_service_as_it_was(done: list[Any], run: Run) -> None:
    before = record.chosen(PORT)
    answer = typed("update", f"m={run.path}", "--canary", "10", "--gate", gate(min=1.01))
    assert (answer.exit_code, done, record.chosen(PORT)) == (3, [], before), answer.output
    assert [(line["let_in"], line["level"]) for line in logged()] == [(False, "warning")]


def test_a_version_that_passes_is_noted_under_its_new_number(done: list[Any], run: Run) -> None:
    answer = typed("update", f"m={run.path}", "--gate", gate(min=0.2))
    assert answer.exit_code == 0, answer.output
    assert done == [("update", f"m={run.path}")]
    assert list(record.chosen(PORT).gates) == ["m@2"]


def test_what_is_let_in_all_the_same_is_said_loudly_and_logged(done: list[Any], run: Run) -> None:
    answer = typed("update", f"m={run.path}", "--gate", gate(min=1.01), "--despite-gate")
    assert answer.exit_code == 0, answer.output
    assert "warning: m is let in although it does not pass gate.yaml" in answer.output
    assert record.chosen(PORT).gates["m@2"].startswith("LET IN DESPITE ITS GATE")
    assert [(line["passed"], line["let_in"], line["level"]) for line in logged()] == [(False, True, "warning")]


def test_a_model_that_came_through_a_gate_goes_on_coming_through_it(
    done: list[Any], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wherever the next command is typed, and as the gate is by then."""
    assert typed(f"m={run.path}", "--gate", gate(min=0.2)).exit_code == 0
    gate(min=1.01)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    refused = typed("update", f"m={run.path}")
    assert (refused.exit_code, done) == (3, [("start", ["m"])]), refused.output
    assert f"m has come through {tmp_path / 'gate.yaml'}: judged by it again" in refused.output
    despite = typed("update", f"m={run.path}", "--despite-gate")
    assert despite.exit_code == 0, despite.output
    assert record.chosen(PORT).gates["m@2"].startswith("LET IN DESPITE ITS GATE")
    assert done[1:] == [("update", f"m={run.path}")]


def test_a_remembered_gate_that_is_gone_lets_nothing_in(done: list[Any], run: Run) -> None:
    write(log="", gate_files={"m": {"let in": "gone.yaml"}, "other": {"let in": gate(min=0)}})
    answer = typed("update", f"m={run.path}")
    assert (answer.exit_code, done) == (2, []), answer.output
    assert "there is no gate gone.yaml" in answer.output
    assert typed("update", f"m={run.path}", "--gate", "gate.yaml").exit_code == 0


def test_margins_of_an_update_are_against_the_version_that_answers(
    done: list[Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "answering", lambda there, name: run.path)
    answer = typed("update", f"m={run.path}", "--gate", gate(margin=0.5))
    assert answer.exit_code == 0, answer.output
    assert f"against {run.name}" in " ".join(answer.output.split())


@pytest.fixture
def rollout(done: list[Any], run: Run, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Version 2 beside 1, which has heard 200 requests and answers 8 of them otherwise; an earlier rollout agreed in none."""
    monkeypatch.setattr(change, "standing", lambda there, name: Standing("1", "2", run.path, run.path, "now"))
    lines = [pair(f"old{k}", "low", "high", "before") for k in range(50)]
    lines += [pair(f"r{k}", "low", "high" if k < 8 else "low", "now") for k in range(200)]
    Path(f"{PORT}.pairs.jsonl").write_text("\n".join(lines) + "\n")
    return done


def pair(name: str, one: str, two: str, of: str) -> str:
    answers = {"1": [{"label": one}], "2": [{"label": two}]}
    return json.dumps({"id": name, "model": "m", "answered": "1", "mirrored": "2", "rollout": of, "answers": answers})


@pytest.mark.parametrize(("floor", "code"), [(0.9, 0), (0.99, 3)])
def test_a_promotion_hangs_on_the_pairs_of_its_own_rollout(rollout: list[Any], floor: float, code: int) -> None:
    answer = typed("promote", "m", "--gate", gate("pairs/agreement", min=floor))
    assert answer.exit_code == code, answer.output
    assert rollout == ([("promote", "now")] if code == 0 else [])


@pytest.mark.parametrize(("floor", "code"), [(0.9, 0), (0.99, 3)])
@pytest.mark.parametrize("verb", ["promote", "update"])
def test_what_is_promoted_is_judged_by_the_gate_of_the_last_promotion(
    rollout: list[Any], run: Run, floor: float, code: int, verb: str
) -> None:
    """By ``update`` without a share too, which gives it everyone; one that is to hear or answer some comes in as before."""
    assert typed("promote", "m", "--gate", gate("pairs/agreement", min=0.1)).exit_code == 0
    gate("pairs/agreement", min=floor)
    assert typed("update", f"m={run.path}", "--shadow", "10").exit_code == 0
    assert typed("update", "m", "--canary", "10").exit_code == 0
    before = len(rollout)
    answer = typed(verb, "m")
    assert answer.exit_code == code, answer.output
    assert len(rollout) - before == (1 if code == 0 else 0)
    if code:
        assert typed(verb, "m", "--despite-gate").exit_code == 0
    assert typed("update", f"m={run.path}", "--shadow", "10").exit_code == 0


def test_a_run_without_pairs_does_not_come_in_where_only_pairs_could_judge_it(done: list[Any], run: Run) -> None:
    write(gate_files={"m": {"promoted": gate("pairs/agreement", min=0.1)}}, log=f"{PORT}.jsonl")
    answer = typed("update", f"m={run.path}")
    assert (answer.exit_code, done) == (2, []), answer.output
    assert "--canary 10`, then `tunesmith serve promote m`" in answer.output

    assert typed("update", f"m={run.path}", "--despite-gate").exit_code == 0
    assert "LET IN DESPITE ITS GATE" in record.chosen(PORT).gates["m@2"]
    assert "not judged" in record.chosen(PORT).gates["m@2"]


def test_a_canary_comes_in_to_gather_the_pairs_that_a_promotion_asks_for(done: list[Any], run: Run) -> None:
    write(gate_files={"m": {"promoted": gate("pairs/agreement", min=0.1)}}, log="")
    answer = typed("update", f"m={run.path}", "--canary", "10")
    assert (answer.exit_code, len(done)) == (0, 1), answer.output


def test_a_canary_of_everyone_is_judged_as_what_answers_everyone(rollout: list[Any], run: Run) -> None:
    write(gate_files={"m": {"promoted": gate("pairs/agreement", min=0.99)}}, log=f"{PORT}.jsonl")
    comes_in = typed("update", f"m={run.path}", "--canary", "100")
    assert (comes_in.exit_code, "a run that comes in has none" in comes_in.output) == (2, True), comes_in.output
    write(gate_files={"m": {"promoted": "gate.yaml"}}, log=f"{PORT}.jsonl", rollouts=("m",))
    assert (typed("update", "m", "--canary", "100").exit_code, rollout) == (3, [])
    assert typed("update", "m", "--canary", "99").exit_code == 0


@pytest.mark.parametrize("share", ["--canary", "--shadow"])
def test_a_canary_or_shadow_is_judged_by_a_promotions_gate_that_asks_for_no_pairs(
    done: list[Any], run: Run, share: str
) -> None:
    write(gate_files={"m": {"promoted": gate(min=1.01)}}, log=f"{PORT}.jsonl")
    answer = typed("update", f"m={run.path}", share, "10")
    assert (answer.exit_code, done) == (3, []), answer.output


def test_a_gate_that_asks_for_pairs_and_let_one_in_unjudged_is_not_in_the_way_of_the_next(done: list[Any], run: Run) -> None:
    write(gate_files={"m": {"let in": gate("pairs/agreement", min=0.1)}}, log=f"{PORT}.jsonl")
    answer = typed("update", f"m={run.path}", "--canary", "10")
    assert (answer.exit_code, "comes in unjudged, to gather the pairs" in answer.output) == (0, True), answer.output


def test_a_gate_that_is_remembered_meanwhile_is_not_forgotten(done: list[Any], run: Run) -> None:
    """The command has read the record before its gate was judged."""
    before = record.chosen(PORT)
    passage = gated.Passage("m@1", run.path, gate(min=0), True, "passed", "now")
    gated.note(PORT, [passage])
    change._write_down(before, {"models": [], "rollouts": {}})
    assert list(record.chosen(PORT).gate_files) == ["m"]


def test_the_version_that_comes_in_is_judged_by_its_pairs_though_its_run_is_named_again(rollout: list[Any], run: Run) -> None:
    write(gate_files={"m": {"promoted": gate("pairs/agreement", min=0.99)}}, rollouts=("m",), log=f"{PORT}.jsonl")
    assert (typed("update", f"m={run.path}").exit_code, rollout) == (3, [])


def test_a_baseline_by_its_name_is_looked_for_where_the_runs_are(done: list[Any], run: Run) -> None:
    folder = Path(run.path)
    asked = (f"m={run.path}", "--output-dir", str(folder.parent), "--gate", gate(margin=0.5))
    answer = typed(*asked, "--baseline", folder.name)
    assert "the judged evaluation itself" in " ".join(answer.output.split()), answer.output


@pytest.mark.parametrize(("right", "code"), [("high", 0), ("low", 3)])
def test_with_labels_the_new_version_is_held_against_the_old_one(rollout: list[Any], right: str, code: int) -> None:
    """The eight that differ: the new version is right in all of them, or in none."""
    rows = [f"r{k},{right if k < 8 else 'low'}" for k in range(200)]
    Path("labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    answer = typed("promote", "m", "--gate", gate("pairs/accuracy", margin=0.01), "--labels", "labels.csv")
    assert answer.exit_code == code, answer.output


def test_margins_of_a_promotion_are_against_the_version_that_answers(rollout: list[Any], run: Run) -> None:
    answer = typed("promote", "m", "--gate", gate(margin=0.5))
    assert answer.exit_code == 0, answer.output
    assert f"against {run.name}" in " ".join(answer.output.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["promote", "m", "--labels", "x.csv"], "--labels goes with --gate"),
        (["promote", "m", "--despite-gate"], "--despite-gate goes with --gate"),
        (["update", "m", "--canary", "5", "--gate", "gate.yaml"], "names none"),
        (["promote", "m", "--gate", "gone.yaml"], "there is no gate gone.yaml"),
        (["update", "m=nothing", "--gate", "gate.yaml"], "there is no run 'nothing'"),
    ],
)
def test_mistakes_are_said(rollout: list[Any], arguments: list[str], says: str) -> None:
    gate(min=0.1)
    answer = typed(*arguments)
    assert (answer.exit_code, says in answer.output, rollout) == (2, True, []), answer.output


def test_rules_on_pairs_need_pairs_and_those_on_what_is_right_labels(rollout: list[Any]) -> None:
    without = typed("promote", "m", "--gate", gate("pairs/accuracy", min=0.5))
    assert (without.exit_code, "--labels FILE" in without.output) == (2, True), without.output
    Path(f"{PORT}.pairs.jsonl").unlink()
    none = typed("promote", "m", "--gate", gate("pairs/agreement", min=0.5))
    assert (none.exit_code, "there is no file" in none.output) == (2, True), none.output
