"""A request to a service ends when it was said to, however the service spends the time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tunesmith.errors import ServiceError, UserError
from tunesmith.evaluation.service import KEY_VARIABLE, Service, key_of

pytestmark = pytest.mark.unit


@contextmanager
def dripping(head: bytes, drop: bytes, every: float) -> Iterator[str]:
    """A server that answers with a head at once, and then with a drop at a time; its URL."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(head)
                    while not ended.wait(every):
                        connection.sendall(drop)
                except OSError:
                    return

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.mark.parametrize(("head", "drop"), [(b"", b""), (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" ")])
def test_one_attempt_takes_no_longer_than_its_deadline(head: bytes, drop: bytes) -> None:
    """A silent server, and one that says a byte now and then: the first attempt alone would have 60 s, or for ever."""
    with dripping(head, drop, 0.1) as url:
        service, begun = Service(url, timeout=60.0), time.monotonic()
        with pytest.raises(ServiceError, match=r"given up after \d+ attempts in 0.5 s: .* did not answer within 0.\d+ s"):
            service.send("GET", "/v2/models/m", deadline=0.5)
        assert time.monotonic() - begun < 2
        service.close()


def test_a_body_that_is_whole_in_time_is_read() -> None:
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{", b" }", 0.05) as url:
        service = Service(url)
        assert service.send("GET", "/").text == "{ }"
        service.close()


def test_a_key_is_the_one_given_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "theirs\n")
    assert (key_of(None), key_of("ours "), key_of("")) == ("theirs", "ours", "")
    with pytest.raises(UserError, match="characters that no key has"):
        key_of("a\tb")
