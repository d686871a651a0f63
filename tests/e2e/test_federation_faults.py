"""Faults of the line, the clock and the one at the other end, against a federation of real processes."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from support.house import House, rounds, standing, tunesmith, until
from support.slow_line import SlowLine
from tunesmith_federated.deployment import certificates, jobs
from tunesmith_federated.deployment.fleet import Fleet
from tunesmith_federated.deployment.trouble import explain
from tunesmith_federated.flower import ArrayRecord, Message, RecordDict

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FAST = 50e6


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Up, with site a; others may join."""
    with standing(tmp_path_factory.mktemp("house") / "fed", "a,far,played") as made:
        made.join("a")
        yield made


def move(house: House, name: str, port: int) -> None:
    """Let a site reach the server by another port."""
    place = house.site(name) / "site.yaml"
    values = yaml.safe_load(place.read_text(encoding="utf-8"))
    place.write_text(yaml.safe_dump({**values, "server": f"localhost:{port}"}), encoding="utf-8")


def line_of(house: House, name: str, key: Any = None) -> Fleet:
    """A site's line to the front door, with its certificate and its node key or another."""
    folder = house.site(name)
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "site.crt", folder / "site.key")
    return Fleet(f"localhost:{house.port}", context, key or certificates.load_node_key(folder / "node.key"))


def test_megabytes_come_through_a_slow_line_and_its_site_stays_counted(house: House, tmp_path: Path) -> None:
    with SlowLine(house.port, up=180e3, down=FAST) as line:
        move(house, "far", line.port)
        house.join("far", "10")  # a node that is silent for 20 s is offline
        run = house.submit(tmp_path / "job", sites=2, rounds=1, numbers=1_000_000, timeout=120)
        found = jobs.wait(run, house.folder, 150)
        house.leave("far")
    (only,) = rounds(tmp_path / "job")
    assert (found.outcome, only["replies"], only["errors"]) == ("completed", 2, [])
    assert only["seconds"] > 20  # 4 MB at 180 kB/s


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_round_goes_on_without_a_site_whose_line_is_too_slow_and_it_is_back(house: House, tmp_path: Path, way: str) -> None:
    with SlowLine(house.port, up=FAST, down=FAST) as line:
        move(house, "far", line.port)
        house.join("far", "10")
        line.rates[way] = 20e3
        run = house.submit(tmp_path / "job", sites=2, rounds=12, numbers=300_000, timeout=4.0, pause=1.0)
        until(lambda: rounds(tmp_path / "job"), "the first round")
        line.rates[way] = FAST
        found = jobs.wait(run, house.folder, 90)
        log = house.log("far")
        house.leave("far")
    done = rounds(tmp_path / "job")
    assert (found.outcome, done[0]["replies"]) == ("completed", 1), log
    assert 2 in [one["replies"] for one in done[1:]], log
    assert "Traceback" not in log


def test_a_line_that_breaks_in_the_middle_is_gone_on_with_both_ways(house: House, tmp_path: Path) -> None:
    with SlowLine(house.port, up=1e6, down=1e6) as line:
        move(house, "far", line.port)
        house.join("far")
        run = house.submit(tmp_path / "job", sites=2, rounds=1, numbers=1_000_000, timeout=60.0)
        for way in ("down", "up"):
            until(lambda way=way: line.passed[way] > 2e6, f"half of it, {way}")
            line.cut()
        found = jobs.wait(run, house.folder, 90)
        house.leave("far")
    (only,) = rounds(tmp_path / "job")
    assert (found.outcome, only["replies"], only["errors"]) == ("completed", 2, [])
    assert house.log("far").count("trying on") == 2


def test_an_expired_certificate_is_refused_at_both_ends_until_it_is_renewed(house: House) -> None:
    house.federation.add("late", days=0)
    config = str(house.site("late") / "site.yaml")
    time.sleep(1.1)
    with house.client("late") as client, pytest.raises(httpx.TransportError, match="certificate expired") as caught:
        client.post("/v1/fleet/pull-messages")
    assert "this site's certificate has expired" in explain(caught.value, "fed:8443").what
    code, said = tunesmith("site", "join", "--config", config)
    assert (code, "the certificate expired on" in said, "--renew" in said) == (2, True, True), said
    assert tunesmith("federation", "add", str(house.folder), "late", "--renew")[0] == 0
    house.join("late")
    house.leave("late")


def test_a_clock_that_is_ten_minutes_behind_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore import date
    from flwr.supernode import node_auth_http_interceptor

    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: date.now() - timedelta(minutes=10))
    with contextlib.closing(line_of(house, "played")) as line, pytest.raises(httpx.HTTPStatusError) as caught:
        line.activate()
    trouble = explain(caught.value, "fed:8443")
    assert ("clocks are more than five minutes apart" in trouble.what, trouble.passes) == (True, False)


class Forged:
    """A key that says that it is another's."""

    def __init__(self, own: Any, claimed: Any) -> None:
        self._claimed, self.sign = claimed, own.sign

    def public_key(self) -> Any:
        return self._claimed.public_key()


def test_what_another_key_has_signed_is_refused(house: House) -> None:
    own, claimed = (certificates.load_node_key(house.site(name) / "node.key") for name in ("far", "played"))
    line = line_of(house, "played", Forged(own, claimed))
    with contextlib.closing(line), pytest.raises(httpx.HTTPStatusError) as caught:
        line.activate()
    assert caught.value.response.status_code == httpx.codes.UNAUTHORIZED


def test_a_reply_counts_once_however_often_it_is_sent(house: House, tmp_path: Path) -> None:
    """This process plays the site, which answers, answers again, and then says something else."""
    with contextlib.closing(line_of(house, "played")) as line:
        line.activate()
        run = house.submit(tmp_path / "job", sites=2, rounds=2, timeout=30.0)
        for _ in range(2):
            question = until(line.receive, "a message")
            array = question.content["array"].to_numpy_ndarrays()[0]
            true, false = (
                Message(RecordDict({"array": ArrayRecord([array + np.float32(by)])}), reply_to=question) for by in (1, 1000)
            )
            for reply in (true, true, false, true):
                line.send(reply, 0.0)
        found = jobs.wait(run, house.folder, 90)
        line.deactivate()
    assert found.outcome == "completed", found.details
    assert [(one["replies"], one["mean"]) for one in rounds(tmp_path / "job")] == [(2, 1.0), (2, 2.0)]
