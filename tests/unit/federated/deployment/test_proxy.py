"""The front door's configuration: HAProxy takes it, and what would end up in it by mistake is refused."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tunesmith.cluster.ports import free_port
from tunesmith.errors import UserError
from tunesmith_federated.deployment import proxy
from tunesmith_federated.deployment.folder import Federation

pytestmark = pytest.mark.unit


def test_haproxy_takes_it(federation: Federation) -> None:
    federation.state.mkdir()
    text = proxy.write_config(federation, "127.0.0.1:8443", 1234).read_text(encoding="utf-8")
    assert "verify required" in text
    assert "127.0.0.1:1234 ssl verify required" in text


def site_context(federation: Federation) -> ssl.SSLContext:
    own = federation.folder / "sites" / "a"
    context = ssl.create_default_context(cafile=str(own / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(own / "site.crt", own / "site.key")
    return context


@pytest.fixture
def door(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A site's line to a door that runs, and has nothing behind it; its socket's path is short, wherever tests write."""
    federation.state.mkdir()
    short = tempfile.mkdtemp(prefix="door")
    monkeypatch.setattr(proxy, "admin_socket", lambda _: Path(short, "sock"))
    port, nobody = free_port(), free_port()
    config = proxy.write_config(federation, f"127.0.0.1:{port}", nobody)
    context = site_context(federation)
    headers = {"flwr-public-key": federation.site("a").header}
    running = subprocess.Popen(
        [proxy.program(), "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, headers=headers, timeout=30) as client:
            for _ in range(300):
                with contextlib.suppress(httpx.ConnectError):
                    client.get("/")
                    break
                time.sleep(0.1)
            yield client
    finally:
        running.terminate()
        running.wait(timeout=30)
        shutil.rmtree(short)


def test_a_request_says_how_long_it_is(door: httpx.Client) -> None:
    place = "/v1/fleet/pull-messages"
    assert door.post(place, content=iter([b"in ", b"chunks"])).status_code == httpx.codes.LENGTH_REQUIRED
    for measured in (b"", b"in one piece"):
        assert door.post(place, content=measured).status_code == httpx.codes.SERVICE_UNAVAILABLE, "it was let through"


def test_a_request_that_is_too_long_is_refused_by_what_its_header_says(door: httpx.Client, federation: Federation) -> None:
    head = [
        "POST /v1/fleet/pull-messages HTTP/1.1",
        "host: localhost",
        f"flwr-public-key: {federation.site('a').header}",
        f"content-length: {proxy.LONGEST_BODY + 1}",
    ]
    where = (door.base_url.host, door.base_url.port)
    with socket.create_connection(where, timeout=30) as bare, site_context(federation).wrap_socket(bare) as line:
        line.sendall("\r\n".join([*head, "", ""]).encode())
        status = line.makefile("rb").readline()
    assert status.split()[1] == b"413"


def test_a_path_that_haproxy_would_read_as_something_else_is_refused(federation: Federation) -> None:
    moved = Federation.open(shutil.move(federation.folder, federation.folder.with_name("two words")))
    with pytest.raises(UserError, match="no blanks or quotes"):
        proxy.write_config(moved, "127.0.0.1:8443", 1234)
