"""A request to a service ends when it was said to, however the service spends the time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tunesmith.errors import ServiceError, UserError
from tunesmith.evaluation import service as service_module
from tunesmith.evaluation.service import KEY_VARIABLE, Service, key_of
from tunesmith.evaluation.targets import Reply

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


def test_threads_share_a_service_and_fail_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """One's failure ends neither what another asks again, nor is the end of the service undone by it."""
    monkeypatch.setattr(service_module, "FIRST_PAUSE", 0.01)
    refused, again = threading.Event(), threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/bad":
            assert again.wait(10)
            refused.set()
            return httpx.Response(401)
        again.set()
        return httpx.Response(200 if refused.is_set() else 503)

    service = Service("http://here", transport=httpx.MockTransport(answer))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(lambda path=path: list(service.together(ask(service), [path]))) for path in ("/good", "/bad")]
    assert [reply.answer for reply in asked[0].result()] == [{"status": 200}]
    with pytest.raises(ServiceError, match="401"):
        asked[1].result()


def test_a_closed_service_asks_nothing_again_though_a_thread_has_given_up() -> None:
    answers = {"/bad": httpx.Response(401), "/good": httpx.Response(503, headers={"Retry-After": "60"})}
    waits = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/good":
            waits.set()
        return answers[request.url.path]

    service = Service("http://here", deadline=300.0, transport=httpx.MockTransport(answer))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: list(service.together(ask(service), ["/good"])))
        assert waits.wait(10)
        with pytest.raises(ServiceError, match="401"):
            list(service.together(ask(service), ["/bad"]))
        with pytest.raises(TimeoutError):
            asked.result(0.3)
        service.close()
        with pytest.raises(ServiceError, match="stopped while waiting"):
            asked.result(10)


def ask(service: Service) -> Callable[[str], list[Reply]]:
    """Asks for a path, and replies with the status."""
    return lambda path: [Reply(0, {"status": service.send("GET", path).status_code})]


def test_a_key_is_the_one_given_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "theirs\n")
    assert (key_of(None), key_of("ours "), key_of("")) == ("theirs", "ours", "")
    with pytest.raises(UserError, match="characters that no key has"):
        key_of("a\tb")
