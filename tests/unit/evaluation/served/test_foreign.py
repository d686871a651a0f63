"""A served model is judged as a run is, whoever serves it; what its server does wrong is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, log_loss

from support import foreign
from support.foreign import Foreign
from support.judged import ROWS, Judge, mapping, verdict
from tunesmith import cli

pytestmark = pytest.mark.unit


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


def test_a_cluster_in_the_environment_is_not_an_option(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("127.0.0.1:9", "http://127.0.0.1:9"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert judge("--overwrite").exit_code == 0
        refused = judge("--overwrite", "--on", address)
        assert (refused.exit_code, "asked from here" in refused.output) == (2, True), refused.output


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
