"""Loads say what the server did, not what the client did: closed and open loops, figures, the search for the rate."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from support.data import texts
from support.foreign import Foreign, fitted
from support.served import listening
from support.trivial import trivial
from tunesmith import cli
from tunesmith.errors import ServiceError, UserError
from tunesmith.evaluation.load.connection import Connection, Endpoint
from tunesmith.evaluation.load.figures import Figures, quantile, summed_up
from tunesmith.evaluation.load.loops import Shots
from tunesmith.evaluation.load.search import find_rate
from tunesmith.evaluation.load.shoot import Load, shoot
from tunesmith.evaluation.statistics import Estimate

pytestmark = pytest.mark.unit
SHORT = Load(clients=4, warm_up=0.2, seconds=1.0, timeout=5.0)


def load(url: str, made: Load) -> Figures:
    endpoint = Endpoint.of(f"{url}/v2/models/m/infer")
    return shoot(endpoint, [endpoint.request(b"{}")], made)


async def slowly(number: int) -> int:
    await asyncio.sleep(0.02)
    return 200


def test_a_closed_loop_has_one_request_a_client_under_way() -> None:
    with trivial(slowly) as url:
        found = load(url, SHORT)
    assert found.quantiles["p50"].value >= 20
    assert found.throughput.value <= 4 / 0.02 * 1.05
    assert found.n == pytest.approx(found.throughput.value, abs=5)
    assert found.error_rate.value == 0


def test_a_stall_costs_every_request_that_it_holds_up_in_an_open_loop_and_one_in_a_closed() -> None:
    """Coordinated omission: one pause of 0.5 s in 1.5 s is seen by a third of those who come, not by one."""

    def stalling() -> object:
        begun = time.monotonic()

        async def answer(number: int) -> int:
            held = begun + 0.8 - time.monotonic()
            if 0 < held < 0.5:
                await asyncio.sleep(held)
            return 200

        return answer

    with trivial(stalling()) as url:  # type: ignore[arg-type]
        opened = load(url, Load(rate=100, warm_up=0, seconds=1.5, slo_ms=50))
    with trivial(stalling()) as url:  # type: ignore[arg-type]
        closed = load(url, Load(clients=1, warm_up=0, seconds=1.5, slo_ms=50))
    assert opened.goodput is not None
    assert closed.goodput is not None
    assert 0.5 < opened.goodput.value < 0.85
    assert opened.quantiles["p90"].value > 100
    assert closed.goodput.value > 0.9


def test_what_is_not_answered_counts_as_an_error_and_not_as_fast() -> None:
    async def half(number: int) -> int:
        return 200 if number % 2 else 503

    with trivial(half) as url:
        found = load(url, dataclasses.replace(SHORT, slo_ms=1000))
    assert found.error_rate.value == pytest.approx(0.5, abs=0.05)
    assert found.goodput is not None
    assert found.goodput.value == pytest.approx(0.5, abs=0.05)
    assert set(found.statuses) == {"200", "503"}
    assert found.good_per_second == pytest.approx(found.throughput.value, rel=0.1)


def test_an_answer_that_comes_too_late_is_none() -> None:
    async def never(number: int) -> int:
        await asyncio.sleep(60 if number > 8 else 0)
        return 200

    with trivial(never) as url:
        found = load(url, Load(clients=2, warm_up=0, seconds=1.0, timeout=0.2))
    assert found.statuses["none"] >= 2


def test_a_server_that_answers_nothing_is_told() -> None:
    with pytest.raises(ServiceError, match=r"answered no request within 5 s \(\d+ × none\)"):
        load("http://127.0.0.1:9", SHORT)


def asked_at(url: str, pauses: list[float]) -> list[int]:
    """The statuses of a request on one connection after each pause."""
    endpoint = Endpoint.of(f"{url}/v2/models/m/infer")

    async def ask() -> list[int]:
        connection, found = Connection(endpoint, 5.0), []
        for pause in pauses:
            await asyncio.sleep(pause)
            found.append(await connection.ask(endpoint.request(b"{}")))
        connection.close()
        return found

    return asyncio.run(ask())


def test_a_connection_that_the_server_closed_while_it_was_idle_is_no_error() -> None:
    with trivial(keep_alive=0.1) as url:
        assert asked_at(url, [0, 0.3, 0.3, 0]) == [200, 200, 200, 200]


def test_a_connection_that_ends_as_it_is_used_again_is_tried_once_more_and_a_new_one_is_not() -> None:
    """The server closes after the request has come: the end cannot be seen before the request is sent."""

    def ending_at(*numbers: int) -> object:
        async def answer(number: int) -> int:
            if number in numbers:
                raise EOFError
            return 200

        return answer

    with trivial(ending_at(1)) as url:  # type: ignore[arg-type]
        assert asked_at(url, [0, 0]) == [200, 200]
    with trivial(ending_at(1, 2)) as url:  # type: ignore[arg-type]
        assert asked_at(url, [0, 0]) == [200, 0]


def test_a_key_is_taken_as_the_service_takes_it() -> None:
    assert b"Authorization: Bearer abc\r\n" in Endpoint.of("http://h/infer", "abc\n").head
    with pytest.raises(UserError, match="characters that no key has"):
        Endpoint.of("http://h/infer", "a\nb")


def test_the_warm_up_is_left_out() -> None:
    shots = Shots(warm_up=1.0, seconds=2.0)
    for start, took in ((0.5, 0.9), (1.2, 0.1), (1.4, 0.3), (3.1, 0.7)):
        shots.add(start, start + took, 200)
    found = summed_up(shots)
    assert found.n == 2
    assert found.quantiles["p50"].value == pytest.approx(200)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [400, 2000])
def test_intervals_of_percentiles_cover_the_truth(q: float, n: int) -> None:
    """Of independent log-normal latencies in 95 % of the cases; order statistics are discrete, so a little more."""
    rng = np.random.default_rng(1)
    truth = float(stats.lognorm.ppf(q, 1.0))
    held = 0
    for _ in range(400):
        found = quantile(rng.lognormal(0, 1, n), q)
        assert math.isfinite(found.low)
        held += found.low <= truth <= (found.high if math.isfinite(found.high) else math.inf)
    assert 0.93 <= held / 400 <= 0.985


def queue(capacity: float, tried: list[float]) -> object:
    """A server that stands ``capacity`` requests a second."""
    none = Estimate(math.nan, math.nan, math.nan, 0, "none")

    def measure(rate: float) -> Figures:
        tried.append(rate)
        good = 1.0 if rate <= capacity else 0.5
        return Figures(100, {}, none, none, Estimate(good, good, good, 100, "wilson"), {"200": 100}, 0.0)

    return measure


@pytest.mark.parametrize("capacity", [3.0, 100.0, 137.0, 5000.0])
def test_the_search_ends_close_below_what_the_server_stands(capacity: float) -> None:
    tried: list[float] = []
    found = find_rate(queue(capacity, tried), start=100.0)  # type: ignore[arg-type]
    assert 0.93 * capacity <= found.rate <= capacity
    assert len(tried) < 18
    assert [step.rate for step in found.steps] == tried


def test_a_server_that_stands_nothing_is_told_as_such() -> None:
    assert find_rate(queue(0.0, []), start=100.0).rate == 0  # type: ignore[arg-type]


def test_the_command_loads_a_server_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = texts(60)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = Foreign(fitted(rows))
    told = {
        "task": "text-classification",
        "labels": server.labels,
        "outputs": {"label": {"name": "verdict"}},
    }
    Path("target.yaml").write_text(json.dumps(told))
    arguments = ["--data", "data.jsonl", "--target", "target.yaml", "--seconds", "1", "--warm-up", "0", "--out", "load.json"]
    with listening(server.app) as url:
        done = CliRunner().invoke(cli.main, ["loadtest", f"{url}/v2/models/words", *arguments, "--clients", "2"])
        alone = CliRunner().invoke(cli.main, ["loadtest", f"{url}/v2/models/words", *arguments, "--find-rate"])
    assert done.exit_code == 0, done.output
    assert "p99, ms" in done.output
    stored = json.loads(Path("load.json").read_text())
    assert stored["figures"]["quantiles"]["p50"]["value"] > 0
    assert set(server.asked) <= {row["text"] for row in rows}
    assert (alone.exit_code, "--slo-ms" in alone.output) == (2, True)
