"""An address that leads nowhere is told in seconds, with what to write instead."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tunesmith.cluster import connect
from tunesmith.errors import ClusterError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", [None, "local"])
def test_no_address_starts_a_ray_here(address: str | None) -> None:
    assert connect._address(address) is None


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("http://head:8265", "submits it as a job"),
        ("ray://head:10001", "--on http://head:8265"),
        ("head", "--on head:6379"),
        ("head:port", "HOST:PORT"),
    ],
)
def test_an_address_of_another_kind_is_refused_with_the_right_one(address: str, advice: str) -> None:
    with pytest.raises(ClusterError, match=advice):
        connect._address(address)


def test_a_closed_port_is_told_at_once(listener: socket.socket) -> None:
    address = address_of(listener)
    listener.close()
    began = time.monotonic()
    with pytest.raises(ClusterError, match=rf"no Ray cluster answers at {address}.*\n.*ray start --head"):
        connect._check_reachable(address)
    assert time.monotonic() - began < 5


def test_a_web_server_is_told_from_a_cluster(listener: socket.socket) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(ClusterError, match=r"use --on http://127\.0\.0\.1"):
        connect._check_reachable(address_of(listener))


def test_a_silent_server_is_given_up(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "REACH_TIMEOUT", 0.2)
    with pytest.raises(ClusterError, match="timed out"):
        connect._check_reachable(address_of(listener))


def test_other_versions_are_both_named() -> None:
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1\n"
        "This process on x was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    message = str(connect._why_not("h:1", error, ""))
    assert "2.50.0" in message
    assert "3.11.7" in message


def test_a_refused_token_is_told_from_an_unreachable_cluster() -> None:
    said = "gcs_client.cc:210: Failed to get cluster ID: Unauthenticated: RPC error: InvalidAuthToken: token is missing"
    assert "RAY_AUTH_TOKEN" in str(connect._why_not("h:1", ConnectionError("Failed to connect"), said))


def test_secrets_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert connect.passed_on_variables()["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in connect.passed_on_variables()
