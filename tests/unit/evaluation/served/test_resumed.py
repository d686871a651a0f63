"""Nothing is asked twice: what was stopped goes on where it was, and never from the answers of something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score

from support import foreign
from support.foreign import Foreign
from support.judged import ROWS, Judge, mapping, verdict

pytestmark = pytest.mark.unit


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


def test_answers_of_another_version_are_not_mixed_in(judge: Judge, words: Foreign) -> None:
    """A version is promoted while it is asked, or before it goes on; the server lists the same versions throughout."""
    refusing_in(words, 2 * 32 + 8)
    asked = ("--batch-size", "4", "--concurrency", "1")
    assert judge(*asked).exit_code == 2
    words.fault, words.version = None, "8"
    refused = judge(*asked)
    said = " ".join(refused.output.split())
    assert (refused.exit_code, "version 8 of the model answers" in said, "/versions/VERSION" in said) == (2, True, True), said
    assert judge(*asked, "--out", "anew").exit_code == 0
    assert verdict("anew")["target"].endswith("version 8")


def test_a_version_that_comes_in_while_a_suite_asks_ends_the_evaluation(judge: Judge, words: Foreign) -> None:
    words.version = "7"

    def promoted(outputs: Any, number: int) -> Any:
        words.version = "8" if len(words.asked) >= 2 * 32 + 50 + 40 else "7"
        return outputs

    words.fault = promoted
    refused = judge("--suite", "robustness", "--batch-size", "4", "--concurrency", "1", "evaluation.robustness.severities=[1]")
    assert (refused.exit_code, "version 8 of the model answers" in " ".join(refused.output.split())) == (2, True), (
        refused.output
    )
    assert not Path("judged/metrics.json").exists()


def test_overwriting_is_resumed_and_leaves_nothing_of_before(judge: Judge, words: Foreign) -> None:
    judge()
    for file in ("gate/gate.json", "comparisons/x/comparison.html", "comparisons/mine.txt"):
        Path("judged", file).parent.mkdir(parents=True, exist_ok=True)
        Path("judged", file).write_text("")
    words.asked.clear()
    refusing_in(words, 2 * 32 + 8)
    again = ("--overwrite", "--batch-size", "4", "--concurrency", "1")
    assert judge(*again).exit_code == 2
    there = sorted(str(path.relative_to("judged")) for path in Path("judged").rglob("*") if path.is_file())
    assert there == ["answers.jsonl", "comparisons/mine.txt", "terms.json"]
    assert not Path("judged/gate").exists()
    words.fault = None
    words.asked.clear()
    assert judge(*again).exit_code == 0
    assert len(words.asked) == 2 * 32 + 50 - 8
    words.asked.clear()
    assert judge(*again).exit_code == 0
    assert len(words.asked) == 2 * 32 + 50, "a finished one is asked anew"
