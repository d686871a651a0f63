"""Whatever a site makes up, its reply is rejected, the others' count, and a server that is started again goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from support.federation import LocalGrid
from tunesmith.tasks import load_task
from tunesmith_federated.codec import NOTHING, encode
from tunesmith_federated.flower import ConfigRecord, Message, RecordDict
from tunesmith_federated.gathering import Gatherer
from tunesmith_federated.inbox import Inbox
from tunesmith_federated.messages import EXTRAS, MODEL, WORDS
from tunesmith_federated.protocol import Ask, Reply
from tunesmith_federated.server_state import Row

pytestmark = pytest.mark.unit

LABELS = ["c0", "c1", "c2"]
ASK = Ask("evaluate", "job", 4, 3, "", "", LABELS)
CALIBRATION = [[0, 0.0]] * 14 + [[30, 1.5]]
CLASSES = {"kind": "classes", "n": 30, "metrics": {}, "confusion": [[0, 0, 20], [1, 2, 10]], "calibration": CALIBRATION}
SOUND = {"kind": "averaged", "n": 30, "metrics": {"accuracy": [15.0, 30]}}


class Saying(LocalGrid):
    """Sites of which each says the words that it is given."""

    def __init__(self, **said: str) -> None:
        super().__init__([])
        self.said = list(said.values())
        self.nodes = {name: place for place, name in enumerate(said)}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(f"question-{message.metadata.dst_node_id}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            words = ConfigRecord({"json": self.said[message.metadata.dst_node_id]})
            content = RecordDict({WORDS: words, MODEL: encode({}), EXTRAS: encode({})})
            self._replies[ids[-1]] = Message(content, reply_to=message)
        return ids


def words(site: str, **changes: Any) -> str:
    return json.dumps(asdict(Reply(site, "evaluate", "job", 4, sums=SOUND)) | changes)


@pytest.fixture
def gather(tmp_path: Path) -> Callable[..., dict[str, Row]]:
    """``gather(task, state, site=its words)``: the lines of the sites, by a new server over the same inbox."""

    def made(task: str = "text-classification", state: Any = None, **said: str) -> dict[str, Row]:
        grid, told = Saying(**said), []  # type: ignore[var-annotated]
        state = {"labels": LABELS} if state is None else state
        gatherer = Gatherer(grid, Inbox(tmp_path / "inbox"), load_task(task), state, 1.0, told.append)
        found = gatherer.gather(ASK, grid.nodes, {}, {})
        gatherer.judged(found)
        return found.rows

    return made


TAGGED = ("token-classification", {"labels": ["O", "B-A", "I-A"]})
SEVERAL = ("text-classification", {"labels": LABELS, "multi_label": True})
COUNTS = {"counts": [[1, 2, 3]] * 7}


@pytest.mark.parametrize(
    ("run", "sums", "reason"),
    [
        ((), {"n": 0}, "there is no kind None"),
        ((), {"kind": "nonsense"}, "there is no kind 'nonsense'"),
        ((), {**SOUND, "n": "x"}, "they are of 'x' rows"),
        ((), {**SOUND, "n": 10**400}, "they are of 1000"),
        ((), {**SOUND, "metrics": {"loss": ["x", 1]}}, "loss is 'x'"),
        ((), {**SOUND, "metrics": {"loss": [10**400, 1]}}, "loss is 1000"),
        ((), {**SOUND, "metrics": {"loss": [1.7e308, 1]}}, "loss is 1.7e+308"),
        ((), {**SOUND, "metrics": {"accuracy": [150.0, 30]}}, "accuracy is 5, and lies between 0 and 1"),
        ((), {**SOUND, "metrics": {"mcc": [-60.0, 30]}}, "mcc is -2, and lies between -1 and 1"),
        ((), {**SOUND, "metrics": {"x" * 999: [1.0, 30]}}, "a metric's name has 999 letters"),
        ((), {**SOUND, "metrics": {f"m{k}": [1.0, 30] for k in range(201)}}, "there are 201 metrics, and may be 200"),
        ((), {**CLASSES, "calibration": [*CALIBRATION[:14], [30, 10**400]]}, "calibration has"),
        ((), {**SOUND, **COUNTS, "kind": "tags"}, "they are of kind tags, and those of this task are averaged or classes"),
        ((), {**SOUND, **COUNTS, "kind": "labels", "calibration": CALIBRATION}, "they are of kind labels"),
        (TAGGED, CLASSES, "they are of kind classes, and those of this task are averaged or tags"),
        (TAGGED, {**SOUND, **COUNTS, "kind": "tags"}, "it cannot be judged (ValueError"),
        (SEVERAL, CLASSES, "they are of kind classes"),
        (("text-classification", {"vocabulary": []}), CLASSES, "those of this task are averaged"),
    ],
)
def test_made_up_sums_are_rejected_and_bring_no_metric(gather: Any, run: Any, sums: Any, reason: str) -> None:
    rows = gather(*run, a=words("a", sums=sums), b=words("b"))
    assert (rows["a"]["status"], rows["b"]["status"]) == ("rejected", "replied")
    assert reason in rows["a"]["reason"]
    assert len(rows["a"]["reason"]) < 1000
    assert not {"metrics", "judged"} & set(rows["a"])
    assert set(gather(*run)) == {"b"}


@pytest.mark.parametrize(
    "said",
    [
        "[" * 100_000,
        words("a", sums={"a": [[]]})[:-30],
        words("a", sent_bytes=10**30),
        words("a", seconds=1e300),
        words("a", rows=[[1]]),
        words("b"),
    ],
)
def test_other_words_are_rejected(gather: Any, said: str) -> None:
    rows = gather(a=said, b=words("b"))
    assert {name: row["status"] for name, row in rows.items()} == {"a": "rejected", "b": "replied"}


def test_sums_of_each_task_count(gather: Any) -> None:
    tags = {**SOUND, "kind": "tags", "counts": [[4, 5, 6]]}
    assert gather(a=words("a", sums=CLASSES))["a"]["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert gather(*TAGGED, c=words("c", sums=tags))["c"]["metrics"]["precision"] == 0.8


def test_a_metric_of_a_task_of_ones_own_may_be_in_percent(gather: Any) -> None:
    percent = {**SOUND, "metrics": {"accuracy": [1500.0, 30]}}
    rows = gather("support.tasks_ctc:SpeechToText", {}, a=words("a", sums=percent))
    assert (rows["a"]["status"], rows["a"]["metrics"]) == ("replied", {"accuracy": 50.0})


def test_what_an_earlier_server_kept_and_nobody_can_judge_is_forgotten(gather: Any, tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    for name, sums in (("a", {**SOUND, **COUNTS, "kind": "tags"}), ("b", SOUND)):
        inbox.put(Reply(name, "evaluate", "job", 4, sums=sums), NOTHING, NOTHING)
    assert set(gather()) == {"b"}
    assert Inbox(tmp_path / "inbox").sites() == ["b"]


def test_what_has_come_counts_though_its_site_is_not_asked_and_nothing_of_another_job_does(gather: Any, tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    for name, job in (("gone", "job"), ("other", "another")):
        inbox.put(Reply(name, "evaluate", job, 4, sums=SOUND), NOTHING, NOTHING)
    rows = gather(here=words("here"))
    assert {name: row["status"] for name, row in rows.items()} == {"gone": "replied", "here": "replied"}
