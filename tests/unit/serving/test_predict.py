"""``tunesmith predict``: the same file from a run and from a service, nothing asked twice, half-written or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from support.runs import finished_run
from support.served import Service, listening
from tunesmith import cli
from tunesmith.errors import ServiceError, UserError
from tunesmith.evaluation.journal import Journal
from tunesmith.evaluation.targets import Here, Provided, Reply
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Example
from tunesmith_serving.answers import answer
from tunesmith_serving.client import Client
from tunesmith_serving.engine import Engine
from unit.serving.conftest import Loaded

pytestmark = pytest.mark.unit
Invoke = Callable[..., Result]
KEY = "tsk_0123456789abcdef0123456789"


class Echo:
    """A target that says the text it is asked; ``fails_after`` so many it is gone."""

    def __init__(self, fails_after: int | None = None, version: str = "1", promoted_after: int | None = None) -> None:
        self.name, self.version = "echo", version
        self.task, self.state = load_task("text-classification"), {"labels": ["a", "b"]}
        self.provides: frozenset[Provided] = frozenset({"labels", "scores"})
        self.asked: list[str] = []
        self._left, self._promoted = fails_after, promoted_after

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        for index, example in enumerate(examples):
            if self._left is not None and len(self.asked) >= self._left:
                raise ServiceError("gone")
            self.asked.append(example["text"])
            if "bad" in example["text"]:
                yield Reply(index, problem="is bad")
            else:
                said = {"label": example["text"], "score": 1.0, "scores": {"a": 1.0, "b": 0.0}}
                promoted = self._promoted is not None and len(self.asked) > self._promoted
                yield Reply(index, said, version="2" if promoted else self.version)


def silent(done: int, total: int) -> None:
    """No progress."""


def write(folder: Path, texts: Iterable[str]) -> str:
    place = folder / "data.jsonl"
    place.write_text("".join(json.dumps({"text": text, "size": k}) + "\n" for k, text in enumerate(texts)))
    return str(place)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    tasks = {"reviews": "text-classification", "corners": "image-classification"}
    return {name: finished_run(tmp_path_factory.mktemp(name), task, steps=2) for name, task in tasks.items()}


@pytest.fixture(scope="module")
def served(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and key of a service of both."""
    service = Service(
        tmp_path_factory.mktemp("service"), *(Engine.load(str(run.local_model()), name) for name, run in runs.items())
    )
    with listening(service.app) as url:
        yield url, service.key


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Runs ``tunesmith predict …`` in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_API_KEY", raising=False)
    monkeypatch.setattr(
        cli, "verbs", lambda: {"predict": EntryPoint("predict", "tunesmith_serving.predict:command", cli.GROUP)}
    )
    return lambda *arguments: CliRunner().invoke(cli.main, ["predict", *map(str, arguments)])


def data_of(run: Run) -> Path:
    folder = Path(run.path).parents[1]
    return folder / "images" if (folder / "images").is_dir() else folder / "train.jsonl"


@pytest.mark.parametrize("name", ["reviews", "corners"])
def test_a_run_and_its_service_give_the_same_file(
    invoke: Invoke, runs: dict[str, Run], served: tuple[str, str], tmp_path: Path, name: str
) -> None:
    run, (url, key) = runs[name], served
    here = invoke(run.path, data_of(run), "--out", "here.parquet")
    assert here.exit_code == 0, here.output
    assert "120 of 120 rows answered" in here.output
    there = invoke(f"{url}/predict/{name}", data_of(run), "--out", "there.parquet", "--key", key)
    assert there.exit_code == 0, there.output
    one, other = (pd.read_parquet(tmp_path / f"{side}.parquet") for side in ("here", "there"))
    pd.testing.assert_frame_equal(one.drop(columns="scores"), other.drop(columns="scores"), atol=1e-5)
    pd.testing.assert_frame_equal(pd.DataFrame(list(one.scores)), pd.DataFrame(list(other.scores)), atol=1e-5)
    assert list(one.columns[:3]) == ["id", "file", "row"]
    assert {"data.label", "scanner", "label", "score", "scores", "problem"} <= set(one.columns)
    assert one["id"].is_unique
    want = run.predict([row["text"] if name == "reviews" else row["image"] for row in one.to_dict("records")])
    assert list(one.label) == [said["label"] for said in want]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.parquet", "there.parquet"]


def test_every_task_answers_alike_here_and_over_http(loaded: Loaded, tmp_path: Path) -> None:
    service = Service(tmp_path, loaded.engine("m"))
    inputs = loaded.inputs(12)
    with listening(service.app) as url, Client(f"{url}/predict/m", service.key, batch_size=5) as client:
        there = {reply.index: reply for reply in client.replies(inputs)}
        here = {reply.index: reply for reply in Here(loaded.predictor, "m").replies(inputs)}
        target = Here(loaded.predictor, "m")
        assert (client.name, client.version, client.task.name) == (target.name, target.version, target.task.name)
        assert client.state["labels"] == list(target.state.get("labels") or ())
    assert here.keys() == there.keys() == set(range(12))
    for index, reply in here.items():
        assert reply.problem is None
        assert _close(reply.answer, there[index].answer), (reply, there[index])


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return bool(one == (pytest.approx(other, abs=1e-4) if isinstance(one, float) else other))


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_the_file_may_be_of_any_kind(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"text": ["x", "y, z", "é"], "size": [1, 2, 3], "label": ["a", "b", "a"]})
    place = tmp_path / f"data.{kind}"
    if kind == "csv":
        frame.to_csv(place, index=False)
    elif kind == "parquet":
        frame.to_parquet(place)
    else:
        frame.to_json(place, orient="records")
    outcome = answer(Echo(), str(place), tmp_path / "out.parquet", {}, silent)
    table = pq.read_table(tmp_path / "out.parquet")
    assert (outcome.rows, outcome.answered, outcome.bad) == (3, 3, 0)
    assert table["label"].to_pylist() == table["text"].to_pylist() == ["x", "y, z", "é"]
    assert table["data.label"].to_pylist() == ["a", "b", "a"]
    assert table.schema.field("scores").type == pa.struct([("a", pa.float64()), ("b", pa.float64())])


def test_each_column_of_the_data_keeps_a_name_of_its_own(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["x"], "label": ["theirs"], "data.label": ["older"], "id": [7]})
    frame.to_csv(tmp_path / "one.csv", index=False)
    answer(Echo(), str(tmp_path / "one.csv"), tmp_path / "out.parquet", {}, silent)
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    told = {"label": "x", "data.label": "older", "data.data.label": "theirs", "data.id": "7"}
    assert {name: row[name] for name in told} == told


def test_rows_that_cannot_be_read_or_answered_stand_in_the_file_with_their_reason(tmp_path: Path) -> None:
    place = tmp_path / "data.jsonl"
    place.write_text('{"text": "x"}\nno json\n{"text": null}\n{"text": "bad"}\n{"text": "y"}\n')
    outcome = answer(Echo(), str(place), tmp_path / "out.parquet", {}, silent)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["label"] for row in rows] == ["x", None, None, None, "y"]
    assert [row["problem"] is None for row in rows] == [True, False, False, False, True]
    assert outcome.bad == 3
    assert [problem.split("row ")[1][0] for problem in outcome.problems] == ["2", "3", "4"]


def test_what_was_answered_is_not_asked_again_and_the_file_is_the_same(tmp_path: Path) -> None:
    words = [f"w{k % 7}" if k % 5 else f"bad{k}" for k in range(40)]
    data = write(tmp_path, words)
    whole = Echo()
    answer(whole, data, tmp_path / "whole.parquet", {}, silent)
    first, second = Echo(fails_after=17), Echo()
    with pytest.raises(ServiceError):
        answer(first, data, tmp_path / "out.parquet", {}, silent)
    assert not (tmp_path / "out.parquet").exists()
    outcome = answer(second, data, tmp_path / "out.parquet", {}, silent)
    assert outcome.resumed == 17
    assert first.asked + second.asked == whole.asked == words
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob("*.part.jsonl"))


def test_a_line_cut_off_in_the_middle_counts_for_nothing(tmp_path: Path) -> None:
    data = write(tmp_path, [f"w{k}" for k in range(6)])
    with pytest.raises(ServiceError):
        answer(Echo(fails_after=4), data, tmp_path / "out.parquet", {}, silent)
    journal = tmp_path / "out.parquet.part.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    again = Echo()
    assert answer(again, data, tmp_path / "out.parquet", {}, silent).resumed == 3
    assert again.asked == ["w3", "w4", "w5"]


def test_a_finished_file_is_not_made_again_and_another_one_not_replaced(tmp_path: Path) -> None:
    out, data = tmp_path / "out.parquet", write(tmp_path, ["x", "bad"])
    answer(Echo(), data, out, {}, silent)
    nobody = Echo()
    again = answer(nobody, data, out, {}, silent)
    assert (nobody.asked, again.answered, again.bad, again.resumed) == ([], 1, 1, 2)
    write(tmp_path, ["y"])
    with pytest.raises(UserError, match="is there already"):
        answer(Echo(), data, out, {}, silent)
    assert answer(Echo(), data, out, {}, silent, overwrite=True).rows == 1


@pytest.mark.parametrize("change", ["data", "model"])
def test_answers_to_something_else_are_not_mixed_in(tmp_path: Path, change: str) -> None:
    data = write(tmp_path, ["x", "y"])
    with pytest.raises(ServiceError):
        answer(Echo(fails_after=1), data, tmp_path / "out.parquet", {}, silent)
    if change == "data":
        write(tmp_path, ["z", "y"])
    with pytest.raises(UserError, match=f"another {change}"):
        answer(Echo(version="2" if change == "model" else "1"), data, tmp_path / "out.parquet", {}, silent)


def test_answers_of_a_version_that_comes_in_meanwhile_are_not_mixed_in(tmp_path: Path) -> None:
    data = write(tmp_path, ["x", "y", "z"])
    with pytest.raises(UserError, match=r"version 2 of the model answers.* version 1\n.*/versions/VERSION"):
        answer(Echo(promoted_after=2), data, tmp_path / "out.parquet", {}, silent)
    named = Echo()
    assert answer(named, data, tmp_path / "out.parquet", {}, silent).resumed == 2
    assert named.asked == ["z"]


@pytest.mark.parametrize("foreign", [b"by hand, 1\nby hand, 2\n", b"by hand", b'["a"]\n'])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, foreign: bytes) -> None:
    data = write(tmp_path, ["x"])
    journal = tmp_path / "out.parquet.part.jsonl"
    journal.write_bytes(foreign)
    with pytest.raises(UserError, match="holds no answers of ours"):
        answer(Echo(), data, tmp_path / "out.parquet", {}, silent)
    assert journal.read_bytes() == foreign


@pytest.mark.parametrize("share", [0, 1, 12])
def test_a_journal_that_was_cut_off_in_its_first_line_is_begun_anew(tmp_path: Path, share: int) -> None:
    data = write(tmp_path, ["x", "y"])
    with pytest.raises(ServiceError):
        answer(Echo(fails_after=1), data, tmp_path / "out.parquet", {}, silent)
    journal = tmp_path / "out.parquet.part.jsonl"
    journal.write_bytes(journal.read_bytes()[:share])
    assert answer(Echo(), data, tmp_path / "out.parquet", {}, silent).answered == 2


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    data = write(tmp_path, ["x"])
    journal = tmp_path / "out.parquet.part.jsonl"
    with Journal(journal, {}), pytest.raises(UserError, match="another process writes"):
        answer(Echo(), data, tmp_path / "out.parquet", {}, silent)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing", "data.jsonl"], "there is no run 'nothing'"),
        (["{run}", "nowhere.csv"], "nowhere.csv does not exist"),
        (["{run}", "other.csv"], "--column text=colour"),
        (["{run}", "other.csv", "--column", "text=color"], "Did you mean 'colour'?"),
        (["{run}", "other.csv", "--column", "text"], "names no role and column"),
        (["{run}", "empty.jsonl"], "has no rows"),
        (["{url}/predict/review", "data.jsonl", "--key", "{key}"], "Did you mean 'reviews'?"),
        (["{url}", "data.jsonl", "--key", "{key}"], "has 2 models"),
        (["{url}/predict/reviews", "data.jsonl", "--key", "wrong"], "answers 401"),
        (["{url}/predict/reviews", "data.jsonl"], "TUNESMITH_API_KEY"),
        (["http://me:pass@127.0.0.1/predict/m", "data.jsonl"], "a user or a password"),
    ],
)
def test_a_mistake_is_said_and_leaves_nothing_behind(
    invoke: Invoke, runs: dict[str, Run], served: tuple[str, str], tmp_path: Path, arguments: list[str], says: str
) -> None:
    write(tmp_path, ["x"])
    (tmp_path / "other.csv").write_text("colour\nred\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    before = sorted(tmp_path.iterdir())
    url, key = served
    said = invoke(*(one.format(run=runs["reviews"].path, url=url, key=key) for one in arguments))
    assert said.exit_code == 2, said.output
    assert says in said.output
    assert "Traceback" not in said.output
    assert sorted(tmp_path.iterdir()) == before


def test_bad_rows_end_with_the_users_exit_code(invoke: Invoke, runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"text\nfine\n\xff\n")
    said = invoke(runs["reviews"].path, "data.csv")
    assert said.exit_code == 2
    assert "1 of 2 rows answered" in said.output
    assert "row 3: column 'text' is not valid UTF-8" in said.output
    assert len(pq.read_table(tmp_path / "answers.parquet")) == 2


class _Counting(BaseHTTPRequestHandler):
    """A service that counts what it is asked, and after a while lets everybody wait."""

    asked: list[str]
    patient: threading.Event
    most: int

    def do_GET(self) -> None:
        about = {"name": "m", "versions": ["1"], "task": "text-classification", "labels": ["a"], "inputs": {"text": "text"}}
        self._answer({"models": [about]})

    def do_POST(self) -> None:
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        if len(self.asked) >= self.most and not self.patient.wait(60):
            return
        self.asked.extend(one["text"] for one in inputs)
        self._answer({"predictions": [{"label": "a", "score": 1.0, "scores": {"a": 1.0}} for _ in inputs]})

    def _answer(self, said: Any) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_a_killed_command_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL in the middle of the samples, with several requests under way."""
    handler = type("Handler", (_Counting,), {"asked": [], "patient": threading.Event(), "most": 20})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = [f"w{k}" for k in range(60)]
    data, out = write(tmp_path, words), tmp_path / "out.parquet"
    code = "from tunesmith_serving.predict import command; command()"
    arguments = [f"http://127.0.0.1:{server.server_port}/predict/m", data, "--out", str(out)]
    command = [sys.executable, "-c", code, *arguments, "--batch-size", "2", "--concurrency", "3"]
    environment = {**os.environ, "TUNESMITH_API_KEY": KEY}
    journal = out.with_name(out.name + ".part.jsonl")
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "it did not come so far"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert not out.exists()
        done = {json.loads(line)["i"] for line in journal.read_bytes().splitlines()[1:]}
        assert KEY not in journal.read_text()
        before = len(handler.asked)
        handler.patient.set()
        subprocess.run(command, env=environment, check=True, timeout=90, capture_output=True)
    finally:
        process.kill()
        process.communicate()
        server.shutdown()
        server.server_close()
    assert not {words[index] for index in done} & set(handler.asked[before:])
    assert pq.read_table(out)["text"].to_pylist() == words
    assert KEY.encode() not in out.read_bytes()
