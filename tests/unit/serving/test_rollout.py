"""Two versions behind one door: who answers whom, what the other hears, and that the caller notices nothing of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.served import Scripted, Service
from tunesmith.tasks.base import TensorSpec
from tunesmith_serving import mirror
from tunesmith_serving.change import differences
from tunesmith_serving.describe import Description
from tunesmith_serving.reply import Answered
from tunesmith_serving.rollout import Rollout, agree

pytestmark = pytest.mark.unit

TEXT = (TensorSpec("text", "BYTES", (-1,)),)
OUT = (TensorSpec("label", "BYTES", (-1,)),)
OLD = Description("m", "1", "t", "p", ("a", "b"), {"text": "text"}, ("text",), TEXT, OUT, True)
CALLERS = [f"caller-{k}" for k in range(2000)]


def test_a_caller_keeps_its_version_and_a_larger_share_only_moves_callers_to_the_new_one() -> None:
    moved: dict[str, str] = dict.fromkeys(CALLERS, "1")
    for percent in (0.0, 1.0, 10.0, 50.0, 99.0, 100.0):
        rollout = Rollout("2", "canary", percent, "r")
        now = {one: rollout.answers("1", one) for one in CALLERS}
        assert now == {one: rollout.answers("1", one) for one in CALLERS}
        assert all(now[one] == "2" for one in CALLERS if moved[one] == "2")
        assert Counter(now.values())["2"] / len(CALLERS) == pytest.approx(percent / 100, abs=0.035)
        moved = now
    other = [Rollout("2", "canary", 50.0, "s").answers("1", one) for one in CALLERS]
    mine = [Rollout("2", "canary", 50.0, "r").answers("1", one) for one in CALLERS]
    assert 0.4 < sum(a != b for a, b in zip(mine, other, strict=True)) / len(CALLERS) < 0.6


def test_a_shadow_hears_its_share_and_a_canary_is_heard_by_the_old_version() -> None:
    shadow = Rollout("2", "shadow", 25.0, "r")
    heard = Counter(shadow.mirrors("1", "1", one) for one in CALLERS)
    assert heard["2"] / len(CALLERS) == pytest.approx(0.25, abs=0.035)
    assert {shadow.answers("1", one) for one in CALLERS} == {"1"}
    canary = Rollout("2", "canary", 25.0, "r")
    assert (canary.mirrors("1", "2", "x"), canary.mirrors("1", "1", "x")) == ("1", None)
    assert Rollout("2", "all").mirrors("1", "2", "x") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"label": "a", "probabilities": [0.9, 0.1]}, {"label": "a", "probabilities": [0.5, 0.4]}, True),
        ({"label": "a"}, {"label": "b"}, False),
        ({"labels": ["a"], "scores": [0.1]}, {"labels": ["a", "b"], "scores": [0.1, 0.2]}, False),
        ({"classes": [1, 2]}, {"classes": [1, 3]}, False),
        ({"value": 2.0}, {"value": 2.001}, True),
        ({"value": [2.0, 1.0]}, {"value": [2.0, 1.1]}, False),
        ({"value": [2.0]}, {"value": [2.0, 1.0]}, False),
    ],
)
def test_answers_agree_by_their_words(one: Any, other: Any, same: bool) -> None:
    assert agree(one, other) is agree(other, one) is same


def test_what_differs_from_the_version_replaced_is_named() -> None:
    assert differences(replace(OLD, version="2"), OLD) == []
    told = differences(replace(OLD, labels=("a", "c"), outputs=(TensorSpec("label", "INT64", (-1,)),)), OLD)
    assert told == ["labels a, c, not a, b", "outputs label INT64[-1], not label BYTES[-1]"]


class Pair:
    """The door before two versions; ``second`` is what the new one does."""

    def __init__(self, folder: Path, rollout: Rollout | None, second: Any = None, **settings: Any) -> None:
        async def first(examples: list[Any]) -> Answered:
            return Answered([{"label": "a", "probabilities": [0.75, 0.25]}] * len(examples))

        async def other(examples: list[Any]) -> Answered:
            return Answered([{"label": "b" if "b" in one["text"] else "a", "probabilities": [0.5, 0.5]} for one in examples])

        self.service = Service(folder, Scripted(OLD, first), Scripted(replace(OLD, version="2"), second or other), **settings)
        self.service.shelf.put(self.service.served, {"m": rollout} if rollout else {})

    def run(self, *requests: tuple[str, dict[str, Any]], wait: bool = True) -> list[httpx.Response]:
        """Post to the door one after the other, then wait for what is mirrored."""

        async def all_of_them() -> list[httpx.Response]:
            async with self.service.client() as client:
                answers = [await client.post(path, **request) for path, request in requests]
                while wait and self.service.shelf.mirror.under_way:
                    await asyncio.sleep(0.005)
                return answers

        return asyncio.run(all_of_them())

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The pairs as they are written down."""
        return [json.loads(line) for line in self.service.pairs.read_text().splitlines()]


def ask(text: str = "x", **headers: str) -> tuple[str, dict[str, Any]]:
    return "/predict/m", {
        "json": {"inputs": [text]},
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
    }


def test_a_canary_is_sticky_by_header_or_key_and_says_who_answered(tmp_path: Path) -> None:
    rollout = Rollout("2", "canary", 50.0, "r")
    pair = Pair(tmp_path, rollout)
    callers = CALLERS[:20]
    answers = pair.run(*(ask(X_Sticky_Key=one) for one in callers), *(ask() for _ in range(3)))
    said = [one.json()["version"] for one in answers]
    assert said[:20] == [rollout.answers("1", one) for one in callers]
    assert set(said[:20]) == {"1", "2"}
    assert said[20:] == [rollout.answers("1", "tester")] * 3


def test_a_version_that_is_named_answers(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Rollout("2", "all"))
    tensor = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}
    plain, first, unknown, pathed, routed = pair.run(
        ask(),
        ask(X_Model_Version="1"),
        ask(X_Model_Version="7"),
        ("/v2/models/m/versions/1/infer", {"json": tensor, "headers": {"X-Model-Version": "2"}}),
        ("/v2/models/m/infer", {"json": tensor}),
    )
    assert (plain.json()["version"], first.json()["version"]) == ("2", "1")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "m has no version '7'; there are 1, 2")
    assert (pathed.json()["model_version"], routed.json()["model_version"]) == ("1", "2")
    assert pair.service.shelf.tallies["m"].answered == {"2": 2}


def test_pairs_are_written_down_by_id_and_counted_without_an_input(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Rollout("2", "shadow", 100.0, "r"))
    pair.run(ask("secret", X_Request_ID="r-1"), ask("secret b", X_Request_ID="r-2"))
    first, second = pair.lines
    assert (first["id"], first["agree"], second["id"], second["agree"]) == ("r-1", True, "r-2", False)
    assert first["answers"]["1"] == [{"label": "a", "score": 0.75, "scores": {"a": 0.75, "b": 0.25}}]
    assert second["answers"]["2"][0]["label"] == "b"
    assert set(first["ms"]) == {"1", "2"}
    text = pair.service.pairs.read_text() + pair.service.log.read_text()
    assert "secret" not in text
    assert "tsk_" not in text
    counted = {
        one.name: one.value
        for family in text_string_to_metric_families(pair.service.ask("GET", "/metrics").text)
        for one in family.samples
        if one.labels.get("version") == "2"
    }
    assert [counted[f"tunesmith_{name}_total"] for name in ("mirrored", "pairs", "agreements")] == [2, 2, 1]


def test_a_canarys_answers_are_compared_with_the_old_versions(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Rollout("2", "canary", 100.0, "r"))
    (answer,) = pair.run(ask("b"))
    (line,) = pair.lines
    assert answer.json()["version"] == "2"
    assert (line["answered"], line["mirrored"], line["agree"]) == ("2", "1", False)


@pytest.mark.parametrize("fault", ["raises", "refuses", "hangs"])
def test_what_the_shadow_does_reaches_no_caller(tmp_path: Path, fault: str) -> None:
    async def broken(examples: list[Any]) -> Answered:
        if fault == "raises":
            raise ZeroDivisionError("secret")
        if fault == "refuses":
            return Answered(problem=(0, "secret"))
        await asyncio.sleep(60)
        raise AssertionError

    pair = Pair(tmp_path, Rollout("2", "shadow", 100.0, "r"), broken)
    (answer,) = pair.run(ask())
    tally = pair.service.shelf.tallies["m"]
    assert (answer.status_code, answer.json()["version"]) == (200, "1")
    assert (tally.mirrored, tally.failed, tally.pairs) == (1, 1, 0)
    assert "secret" not in pair.service.log.read_text()


def test_few_are_mirrored_at_a_time_and_the_rest_is_dropped_and_counted(tmp_path: Path) -> None:
    async def slow(examples: list[Any]) -> Answered:
        await asyncio.sleep(0.3)
        return Answered([{"label": "a", "probabilities": [0.5, 0.5]}] * len(examples))

    pair = Pair(tmp_path, Rollout("2", "shadow", 100.0, "r"), slow)
    many = mirror.UNDER_WAY + 5
    answers = pair.run(*(ask() for _ in range(many)))
    tally = pair.service.shelf.tallies["m"]
    assert [one.status_code for one in answers] == [200] * many
    assert (tally.mirrored, tally.dropped, tally.pairs) == (mirror.UNDER_WAY, 5, mirror.UNDER_WAY)


def test_large_bodies_are_not_kept_for_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "BYTES", 1000)
    pair = Pair(tmp_path, Rollout("2", "shadow", 100.0, "r"))
    pair.run(ask("x" * 2000), ask("x"))
    tally = pair.service.shelf.tallies["m"]
    assert (tally.mirrored, tally.dropped) == (1, 1)


def test_the_file_of_pairs_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "FILE", 2000)
    pair = Pair(tmp_path, Rollout("2", "shadow", 100.0, "r"))
    pair.run(*(ask() for _ in range(7)), wait=True)
    pair.run(*(ask() for _ in range(7)), wait=True)
    sizes = [one.stat().st_size for one in tmp_path.glob("pairs.jsonl*")]
    assert len(sizes) == 2
    assert max(sizes) <= 2000


def test_a_request_that_is_under_way_keeps_a_version_that_leaves(tmp_path: Path) -> None:
    """Promoting and rolling back under requests: each is answered by the version that it had."""

    async def slow(examples: list[Any]) -> Answered:
        await asyncio.sleep(0.2)
        return Answered([{"label": "b", "probabilities": [0.5, 0.5]}])

    pair = Pair(tmp_path, Rollout("2", "all", id="r"), slow)
    shelf, (old, new) = pair.service.shelf, pair.service.served

    async def rolled_back() -> tuple[httpx.Response, httpx.Response, int]:
        async with pair.service.client() as client:
            path, request = ask()
            early = asyncio.create_task(client.post(path, **request))
            await asyncio.sleep(0.05)
            shelf.put([old])
            held = new.open
            late = await client.post(path, **request)
            return await early, late, held

    early, late, held = asyncio.run(rolled_back())
    assert (early.json()["version"], late.json()["version"], held, new.open) == ("2", "1", 1, 0)


def test_a_shadow_that_is_down_does_not_make_the_service_unready(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Rollout("2", "shadow", 10.0, "r"))
    pair.service.served[1].backend.up = False  # type: ignore[attr-defined]
    assert pair.service.ask("GET", "/v2/health/ready").status_code == 200
    pair.service.shelf.put(pair.service.served, {"m": Rollout("2", "canary", 10.0, "r")})
    assert pair.service.ask("GET", "/v2/health/ready").status_code == 503


def test_another_share_goes_on_counting_and_another_rollout_begins_anew(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Rollout("2", "canary", 100.0, "r"))
    pair.run(ask())
    shelf = pair.service.shelf
    shelf.put(pair.service.served, {"m": Rollout("2", "canary", 50.0, "r")})
    assert shelf.tallies["m"].answered == {"2": 1}
    shelf.put(pair.service.served, {"m": Rollout("2", "canary", 50.0, "s")})
    assert shelf.tallies["m"].answered == {}


def test_metrics_show_a_key_its_own_models_only(tmp_path: Path) -> None:
    pair = Pair(tmp_path, None)
    narrow = pair.service.keys.add("narrow", ["other"])
    pair.run(ask())
    assert 'model="m"' in pair.service.ask("GET", "/metrics").text
    seen = pair.service.ask("GET", "/metrics", key=narrow).text
    assert 'model="m"' not in seen
    assert list(text_string_to_metric_families(seen))
