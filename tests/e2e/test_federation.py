"""A federation of real processes on loopback: who reaches what, what is never run, and what survives a kill."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support.house import House, environment, rounds, standing, tunesmith, until
from tunesmith_federated.deployment import jobs, up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ELSEWHERE = (
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/docs",
    "/openapi.json",
    "/health",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "//v1/fleet/pull-messages",
    "/v1/fleet/register-node",
    "/v1/fleet/get-fab",
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Up, with sites a and b; c may join."""
    with standing(tmp_path_factory.mktemp("house") / "fed", "a,b,c") as made:
        made.join("a")
        made.join("b")
        yield made


@pytest.fixture
def raw(house: House) -> Callable[[str, str], int]:
    """``raw(site, path)``: HTTP status of a path as it is written; httpx would tidy it."""

    def ask(name: str, path: str) -> int:
        import http.client

        context = ssl.create_default_context(cafile=str(house.folder / "ca" / "ca.crt"))
        context.load_cert_chain(house.site(name) / "site.crt", house.site(name) / "site.key")
        line = http.client.HTTPSConnection("localhost", house.port, context=context, timeout=10)
        with contextlib.closing(line):
            line.request("POST", path, body=b"", headers={"content-type": "application/x-protobuf"})
            return line.getresponse().status

    return ask


def test_a_peer_with_the_ca_certificate_alone_reaches_nothing(house: House) -> None:
    with house.client(None) as client:
        for path in ("/v1/fleet/pull-messages", *ELSEWHERE):
            with pytest.raises(httpx.TransportError, match="certificate required"):
                client.post(path)


def test_a_site_reaches_the_fleet_and_nothing_else(house: House, raw: Callable[[str, str], int]) -> None:
    assert {path: raw("a", path) for path in ELSEWHERE} == dict.fromkeys(ELSEWHERE, 403)
    with house.client("a") as client:
        assert "flower" not in client.post("/docs").text.lower()
        assert client.get("/v1/fleet/pull-messages").status_code == 403  # no key of the site's in the request


def test_every_listener_is_on_loopback_and_a_site_has_none(house: House) -> None:
    server = psutil.Process(up.require(house.federation).pid)
    listening = {
        (line.laddr.ip, line.laddr.port)
        for process in [server, *server.children(recursive=True)]
        for line in process.net_connections()
        if line.status == psutil.CONN_LISTEN
    }
    assert {ip for ip, _ in listening} == {"127.0.0.1"}
    assert {port for _, port in listening} == {house.port, int(house.superlink.rpartition(":")[2])}
    site = psutil.Process(house.processes["a"].pid)
    assert [line for line in site.net_connections() if line.status == psutil.CONN_LISTEN] == []


def test_rounds_come_through_and_the_second_is_fast(house: House, tmp_path: Path) -> None:
    run = house.submit(tmp_path / "job", rounds=4)
    found = jobs.wait(run, house.folder, 90)
    assert (found.status, found.outcome) == ("finished", "completed"), found.details
    done = rounds(tmp_path / "job")
    assert [one["replies"] for one in done] == [2, 2, 2, 2]
    assert done[-1]["mean"] == 4.0
    assert min(one["seconds"] for one in done) < 5  # Flower's own deployment takes 17 s and more
    code, said = tunesmith("federation", "status", str(house.folder), "--json")
    status = json.loads(said)
    assert code == 0
    assert (status["sites"]["a"]["state"], status["sites"]["c"]["state"]) == ("online", "never seen")
    assert status["runs"][0]["status"] == "completed"


def test_code_that_the_server_sends_is_not_run_at_a_site(house: House, tmp_path: Path) -> None:
    from flwr.cli.build import build_fab_from_files

    from tunesmith_federated.deployment import wire

    mark, job = tmp_path / "was-here", tmp_path / "job"
    job.mkdir()
    (job / "spec.json").write_text('{"rounds": 1}', encoding="utf-8")
    config = """
[project]
name = "evil"
version = "1.0.0"
[tool.flwr.app]
publisher = "evil"
[tool.flwr.app.components]
serverapp = "support.standin:server"
clientapp = "evil:app"
[tool.flwr.app.config]
job = ""
"""
    evil = f"open({str(mark)!r}, 'w').close()\nfrom flwr.clientapp import ClientApp\napp = ClientApp()\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        app, _ = build_fab_from_files({"pyproject.toml": config.encode(), "evil.py": evil.encode()})
    with wire.Control(house.superlink, house.federation.ca / "ca.crt") as control:
        run = control.start(app, {"job": str(job)})
    assert jobs.wait(run, house.folder, 90).outcome == "completed"
    assert rounds(job)[0]["replies"] == 2
    assert not mark.exists()


def test_what_went_wrong_at_a_site_stays_there(house: House, tmp_path: Path) -> None:
    (house.site("b") / "fail").touch()
    try:
        jobs.wait(house.submit(tmp_path / "job", rounds=1), house.folder, 90)
    finally:
        (house.site("b") / "fail").unlink()
    (only,) = rounds(tmp_path / "job")
    assert only["replies"] == 1
    assert only["errors"] == ["ValueError at the site; its own log says more"]
    assert "patient 4711" in house.log("b")
    written = b"".join(path.read_bytes() for path in house.federation.state.rglob("*") if path.is_file())
    assert b"patient 4711" not in written


def test_a_node_key_counts_only_with_its_own_certificate(house: House, tmp_path: Path) -> None:
    mixed = shutil.copytree(house.site("a"), tmp_path / "mixed")
    shutil.copy(house.site("b") / "node.key", mixed)
    command = [sys.executable, "-m", "support.standin", str(mixed / "site.yaml")]
    shutil.rmtree(mixed / "state")
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment())
    assert done.returncode == 2
    assert "is not the one that belongs to the certificate" in done.stdout


def test_superlink_itself_refuses_a_node_key_that_is_not_registered(house: House) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from tunesmith_federated.deployment.fleet import Fleet

    context = ssl.create_default_context(cafile=str(house.folder / "ca" / "ca.crt"))
    line = Fleet(house.superlink, context, ec.generate_private_key(ec.SECP384R1()))
    with contextlib.closing(line), pytest.raises(httpx.HTTPStatusError):
        line.activate()


def test_a_site_is_joined_once(house: House) -> None:
    command = [sys.executable, "-m", "support.standin", str(house.site("a") / "site.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment())
    assert done.returncode == 2
    assert f"has joined already: process {house.processes['a'].pid}" in done.stdout


def test_a_run_survives_the_kill_of_superlink(house: House, tmp_path: Path) -> None:
    run = house.submit(tmp_path / "job", rounds=6)
    until(lambda: len(rounds(tmp_path / "job")) >= 2, "the second round")
    address = house.superlink.rpartition(":")[2]
    children = psutil.Process(up.require(house.federation).pid).children()
    (link,) = [one for one in children if "flower_superlink" in " ".join(one.cmdline()) and address in one.cmdline()]
    link.kill()
    found = jobs.wait(run, house.folder, 150)
    assert found.outcome == "completed", found.details
    assert rounds(tmp_path / "job")[-1]["mean"] == 6.0
    assert "SuperLink has ended (exit code -9); it is started again" in (house.federation.logs / "up.log").read_text()


def test_a_site_that_was_killed_comes_back_into_the_run(house: House, tmp_path: Path) -> None:
    run = house.submit(tmp_path / "job", rounds=6, timeout=6.0, pause=1.0)
    until(lambda: len(rounds(tmp_path / "job")) >= 1, "the first round")
    house.leave("b", signal.SIGKILL)
    house.join("b")
    assert jobs.wait(run, house.folder, 120).outcome == "completed"
    assert rounds(tmp_path / "job")[-1]["replies"] == 2


def test_a_run_can_be_cancelled(house: House, tmp_path: Path) -> None:
    run = house.submit(tmp_path / "job", rounds=1000, pause=1.0)
    until(lambda: rounds(tmp_path / "job"), "the first round")
    assert jobs.cancel(run, house.folder)
    assert jobs.wait(run, house.folder, 60).outcome == "stopped"


def test_a_revoked_site_is_told_so_and_let_in_no_more(house: House, raw: Callable[[str, str], int]) -> None:
    process = house.join("c")
    code, said = tunesmith("federation", "revoke", str(house.folder), "c")
    assert (code, "the federation that is up knows it" in said) == (0, True), said
    assert process.wait(30) == 2
    assert "lets this site in no more" in house.log("c")
    assert raw("c", "/v1/fleet/pull-messages") == 403
    assert house.processes["a"].poll() is None
    shutil.rmtree(house.site("c"))
    assert tunesmith("federation", "add", str(house.folder), "c")[0] == 0
    house.join("c")  # a new certificate lets it in, without a restart
    house.leave("c")


def test_a_front_door_that_is_taken_is_named(house: House, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    assert tunesmith("federation", "init", str(folder), "--sites", "a", "--port", str(house.port))[0] == 0
    code, said = tunesmith("federation", "up", str(folder))
    assert (code, f"127.0.0.1:{house.port} cannot be listened on" in said) == (2, True), said
    code, said = tunesmith("federation", "up", str(house.folder), "--detach")
    assert (code, "is up already" in said) == (2, True), said


def test_when_the_server_stops_nothing_of_it_stays_and_sites_try_on(house: House) -> None:
    server = psutil.Process(up.require(house.federation).pid)
    family = [server, *server.children(recursive=True)]
    assert tunesmith("federation", "stop", str(house.folder))[0] == 0
    assert psutil.wait_procs(family, timeout=20)[1] == []
    until(lambda: "trying on" in house.log("a"), "a's word about the server")
    assert tunesmith("federation", "up", str(house.folder), "--detach")[0] == 0
    until(lambda: "answers again" in house.log("a"), "a's word that it is back")


def test_when_the_server_is_killed_its_children_end_too(house: House) -> None:
    server = psutil.Process(up.require(house.federation).pid)
    children = server.children(recursive=True)
    server.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []
    code, said = tunesmith("federation", "up", str(house.folder), "--detach")
    assert code == 0, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_site_that_is_asked_to_end_is_offline_at_once(house: House, number: int) -> None:
    house.join("c")
    timer = threading.Timer(30, house.processes["c"].kill)
    timer.start()
    command = [sys.executable, "-m", "tunesmith.cli", "federation", "status", str(house.folder), "--json"]
    house.leave("c", number)
    timer.cancel()
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    assert found["sites"]["c"]["state"] == "offline"
