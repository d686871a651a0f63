"""HAProxy's open pages are taken out of the configuration that Ray writes, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tunesmith.cluster.ports import free_port
from tunesmith_serving import front

pytestmark = pytest.mark.unit


def config() -> str:
    """What Ray's own template makes for one application on loopback."""
    import ray.serve  # noqa: F401  (whose parts cannot be imported before it)
    from jinja2 import Environment
    from ray.serve._private import haproxy, haproxy_templates
    from ray.serve.config import HTTPOptions

    made = Environment(autoescape=False)
    made.filters["haproxy_fmt"] = haproxy._haproxy_fmt_literal
    settings = haproxy.HAProxyConfig(http_options=HTTPOptions(host="127.0.0.1", port=8123), is_head=True)
    settings.has_received_routes = settings.has_received_servers = True
    settings.metrics_enabled = False
    settings.error_file_path = "/tmp/haproxy-serve/500.http"  # it is only named
    route_info = settings.build_health_route_info([])
    rules = made.from_string(haproxy_templates.HAPROXY_HEALTHZ_RULES_TEMPLATE)
    return made.from_string(haproxy_templates.HAPROXY_CONFIG_TEMPLATE).render(
        config=settings,
        backends=[],
        backends_with_health_config=[],
        healthz_rules=rules.render(config=settings, backends=[], health_info=route_info),
        route_info=route_info,
        has_ingress_request_router=False,
    )


def test_only_the_front_end_is_left(tmp_path: Path) -> None:
    text = config()
    assert text.count("bind ") == 3, "Ray's template has other listeners than it had"
    assert text.count("errorfile ") == 3, "Ray's template has other answers of HAProxy's own than it had"
    (tmp_path / "haproxy.cfg").write_text(text)
    values = front.environment(tmp_path, "/bin/echo", 5, 30)
    wrapper = values["RAY_SERVE_HAPROXY_BINARY_PATH"]
    for _ in range(2):
        said = subprocess.run([wrapper, "-db", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, check=True)
        assert said.stdout.split() == ["-db", "-f", str(tmp_path / "haproxy.cfg")]
    left = (tmp_path / "haproxy.cfg").read_text()
    assert [line.strip() for line in left.splitlines() if line.strip().startswith("bind")] == ["bind 127.0.0.1:8123"]
    assert "prometheus-exporter" not in left
    assert "stats enable" not in left
    assert "errorfile" not in left
    assert "/-/routes" not in [line for line in left.splitlines() if "return" in line]
    assert left.splitlines()[0] == text.splitlines()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes for Linux")
def test_haproxy_takes_what_is_left(tmp_path: Path) -> None:
    program = front.haproxy()
    assert program is not None
    text = config().replace("/tmp/haproxy-serve", str(tmp_path))
    (tmp_path / "haproxy.cfg").write_text(text)
    wrapper = front.environment(tmp_path, program, 5, 30)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    said = subprocess.run([wrapper, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes for Linux")
def test_a_door_that_is_away_is_503_and_may_be_asked_again(tmp_path: Path) -> None:
    program = front.haproxy()
    assert program is not None
    port, away = free_port(), free_port()
    (tmp_path / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    (tmp_path / "haproxy.cfg").write_text(
        f"defaults\n  mode http\n  timeout client 9s\n  timeout connect 9s\n  timeout server 9s\n"
        f"  errorfile 503 {tmp_path}/500.http\nlisten here\n  bind 127.0.0.1:{port}\n  server door 127.0.0.1:{away}\n"
    )
    wrapper = front.environment(tmp_path, program, 5, 30)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    running = subprocess.Popen([wrapper, "-db", "-f", str(tmp_path / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        transport = httpx.HTTPTransport(retries=8)  # until it listens
        with httpx.Client(transport=transport, timeout=20) as client:
            assert client.get(f"http://127.0.0.1:{port}/").status_code == 503
    finally:
        running.kill()
        running.wait(10)


@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes for Linux")
def test_closing_waits_for_haproxy_to_end_and_lets_no_other_begin(tmp_path: Path) -> None:
    import socket
    import time

    program = front.haproxy()
    assert program is not None
    port = free_port()
    wrapper = front.environment(tmp_path, program, 5, 30)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    node = tmp_path / "node"
    node.mkdir()
    (node / "haproxy.cfg").write_text(
        f"defaults\n  mode http\n  timeout client 9s\n  timeout connect 9s\n  timeout server 9s\n"
        f"frontend here\n  bind 127.0.0.1:{port}\n  http-request return status 200\n"
    )
    running = subprocess.Popen([wrapper, "-db", "-f", str(node / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ended = threading.Thread(target=running.wait)
        ended.start()  # as Ray does: who is not waited for stays on the list
        assert front.close(tmp_path, 10)
        ended.join(10)
    finally:
        running.kill()
    again = subprocess.run([wrapper, "-db", "-f", str(node / "haproxy.cfg")], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.strip()) == (1, "the service closes")


def test_everything_of_a_service_is_in_a_folder_of_its_own(tmp_path: Path) -> None:
    values = front.environment(tmp_path, "/bin/echo", 5, 30)
    places = [value for name, value in values.items() if name.endswith(("_PATH", "_LOC", "_BASE", "_FILE"))]
    assert len(places) == 6
    assert all(Path(value).is_relative_to(tmp_path) for value in places)
    assert all(len(value) < 100 for value in places if value.endswith(".sock"))


def test_haproxy_lets_go_of_a_silent_client_after_the_door_has(tmp_path: Path) -> None:
    import ray.serve  # noqa: F401  (whose parts cannot be imported before it)
    from ray.serve._private import constants

    values = front.environment(tmp_path, "/bin/echo", 5, 2.5)
    assert float(values["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]) > 2.5
    known = Path(constants.__file__).read_text(encoding="utf-8")
    assert [name for name in values if f'"{name}"' not in known] == [], "Ray has no such variables"


def test_the_environment_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("RAY_SERVE_HAPROXY_NBTHREAD", "7")
    before = dict(os.environ)
    with front.fast_path(5, 30):
        assert os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"
    assert dict(os.environ) == before


def test_the_plain_path_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(front.PLAIN_VARIABLE, "1")
    assert front.haproxy() is None


def test_the_route_is_awaited_until_the_door_stands_in_haproxys_configuration(tmp_path: Path) -> None:
    """Before, requests take Serve's way round, which is cut off as HAProxy begins anew."""
    wrapper = front.environment(tmp_path, "/bin/echo", 5, 30)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert not front.await_route(tmp_path, 0.1), "nothing has begun"
    place = tmp_path / "haproxy.cfg"
    for servers, routed in (("server SERVE_PROXY_ACTOR-fallback", False), ("server SERVE_REPLICA_tunesmith-door-1", True)):
        place.write_text(f"backend http-tunesmith\n    {servers} 127.0.0.1:1 check\n")
        subprocess.run([wrapper, "-f", str(place)], capture_output=True, check=True)
        assert front.await_route(tmp_path, 0.1) == routed
