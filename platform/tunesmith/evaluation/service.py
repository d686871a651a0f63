"""Requests to a service over HTTP: several under way at a time, repeated where that can help, refused in clear words."""

from __future__ import annotations

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from tunesmith.errors import ServiceError, UserError
from tunesmith.evaluation.targets import Reply

KEY_VARIABLE = "TUNESMITH_API_KEY"

PASSING = frozenset({429, 502, 503, 504})
"""Statuses that a later attempt may not meet again."""
REFUSING = frozenset({400, 413, 422})
"""Statuses that are about what was sent."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 20.0
"""Seconds before the second attempt, doubled for each further one, and their ceiling."""
SHORTEST = 0.01
"""Seconds of an attempt whose time is up before it has begun."""
BODY_BYTES = 4 << 20
"""A request is sent once its inputs have so many bytes, though it has fewer examples than it may."""
GREETING_SECONDS = 10.0
"""How long the first question, which models there are, is repeated: a wrong address should be told soon."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PATH = re.compile(
    r"^(?P<root>.*?)(?:/predict/(?P<plain>[^/]+)|/v2/models/(?P<v2>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/infer)?)?/?$"
)

Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Asking:
    """How requests are sent."""

    concurrency: int = 8
    """Most requests under way at a time."""
    batch_size: int = 32
    """Most examples of one request."""
    timeout: float = 60.0
    """Seconds that one attempt may take."""
    deadline: float = 300.0
    """Seconds that one request may take with all its attempts."""


@dataclass(frozen=True)
class Address:
    """What a URL names: the service's root, and the model there; None where it does not say."""

    root: str
    model: str | None = None
    version: str | None = None

    @property
    def in_the_clear(self) -> bool:
        """Whether what is sent can be read on the way: plain HTTP to another machine."""
        parts = urlsplit(self.root)
        return parts.scheme == "http" and parts.hostname not in LOOPBACK

    @classmethod
    def of(cls, url: str, form: str = "http://HOST:PORT/predict/NAME") -> Address:
        """Root, model and version of a URL. Raises :class:`UserError`, which tells the ``form`` of one.

        >>> Address.of("http://127.0.0.1:8000/predict/my%20model")
        Address(root='http://127.0.0.1:8000', model='my model', version=None)
        >>> Address.of("https://host/models/v2/models/a/versions/2/infer")
        Address(root='https://host/models', model='a', version='2')
        """
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  # a wrong one is told only when it is asked for
        except ValueError as error:
            raise UserError(f"the address of the service is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is no address of a service\n    → Write {form}.")
        if "@" in parts.netloc:
            raise UserError(
                f"the address of the service has a user or a password in it\n    → Write {parts.scheme}://"
                f"{parts.netloc.rpartition('@')[2]}{parts.path}, and give the key apart."
            )
        if parts.query or parts.fragment:
            raise UserError(f"the address of the service has more than a path\n    → Write {form}.")
        found = _PATH.match(parts.path)
        assert found is not None, "every path matches"
        name = found["plain"] or found["v2"]
        root = f"{parts.scheme}://{parts.netloc}{found['root']}".rstrip("/")
        return cls(root, unquote(name) if name else None, unquote(found["version"]) if found["version"] else None)


def key_of(given: str | None) -> str:
    """The key, or where none is given that of the environment; empty for none. Raises :class:`UserError` for what is no key."""
    key = (given if given is not None else os.environ.get(KEY_VARIABLE, "")).strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError("the key has characters that no key has\n    → Copy it again: `tunesmith serve keys add` prints it.")
    return key


class _Bounded(httpx.SyncByteStream):
    """The body of an answer, which must be there at ``end``: httpx bounds each read by itself, and a body may have many."""

    def __init__(self, stream: httpx.SyncByteStream, end: float) -> None:
        self._stream, self._end = stream, end

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if time.monotonic() > self._end:
                raise httpx.ReadTimeout("the answer takes too long")
            yield piece

    def close(self) -> None:
        self._stream.close()


class Service:
    """One service. May be shared by threads."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        concurrency: int = 8,
        timeout: float = 60.0,
        deadline: float = 300.0,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: the service's root.
            key: the API key; None is that of the variable ``TUNESMITH_API_KEY``, if there is one.
            concurrency: most requests under way at a time.
            timeout: seconds that one attempt may take.
            deadline: seconds that one request may take with all its attempts.
            headers: what each request has beside the key.
            transport: what sends the requests, instead of the network.

        Raises:
            UserError: a key that no header can carry.
        """
        self._key = key = key_of(key)
        self.url, self.concurrency, self.timeout, self.deadline = url, max(1, concurrency), timeout, deadline
        self._closed = threading.Event()
        self._calls: set[threading.Event] = set()
        """Of each :meth:`together` under way, whether it has given up."""
        self._of_thread = threading.local()
        """``call``: the one of them that a thread works for."""
        self._http = httpx.Client(
            base_url=url,
            headers={**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=timeout,
            limits=httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
            transport=transport,
            trust_env=urlsplit(url).hostname not in LOOPBACK,  # what is on this machine is behind no proxy
        )

    @classmethod
    def of(cls, url: str, key: str | None, asking: Asking, transport: httpx.BaseTransport | None = None) -> Self:
        """The service, asked as ``asking`` says."""
        timeout = min(asking.timeout, asking.deadline)
        return cls(url, key, concurrency=asking.concurrency, timeout=timeout, deadline=asking.deadline, transport=transport)

    def close(self) -> None:
        """End what is under way, and let go of the connections."""
        self._closed.set()
        for call in list(self._calls):
            call.set()
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        deadline: float | None = None,
        told: frozenset[int] = frozenset({413, 422}),
    ) -> httpx.Response:
        """One request with all its attempts: an answer of 200, or of a status in ``told``.

        Raises :class:`ServiceError` for any other, and where there was none within ``deadline`` seconds (the service's own
        where not said).
        """
        deadline = self.deadline if deadline is None else min(deadline, self.deadline)
        end = time.monotonic() + deadline
        attempt = 0
        while True:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311  # jitter
            seconds = max(SHORTEST, min(self.timeout, end - time.monotonic()))
            try:
                answer = self._once(method, path, body, seconds)
                if answer.status_code == 200 or answer.status_code in told:
                    return answer
                last = self.refusal(answer.status_code, message(answer))
                if answer.status_code not in PASSING:
                    raise last
                pause = max(pause, _retry_after(answer) * random.uniform(1, 1.5))  # noqa: S311  # not all at once again
            except httpx.TransportError as error:
                last = self._unreachable(error, seconds)
                if isinstance(error, httpx.UnsupportedProtocol):
                    raise last from error
            attempt += 1
            if time.monotonic() + pause > end:
                raise ServiceError(f"given up after {attempt} attempts in {deadline:g} s: {last}", last.status)
            if self._pause(pause):
                raise ServiceError("stopped while waiting for another attempt", last.status)

    def together(self, ask: Callable[[Asked], list[Reply]], batches: Iterable[Asked]) -> Iterator[Reply]:
        """The replies of ``ask`` to each batch, as they come in; at most ``concurrency`` are under way, and no more is read."""
        call = threading.Event()
        self._calls.add(call)
        if self._closed.is_set():
            call.set()
        with ThreadPoolExecutor(self.concurrency, "tunesmith-client", self._work_for, (call,)) as pool:
            pending: set[Future[list[Reply]]] = set()
            try:
                for batch in batches:
                    pending.add(pool.submit(ask, batch))
                    while len(pending) >= self.concurrency:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        yield from _good_first(done)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from _good_first(done)
            except ServiceError:
                _give_up(call, pool)
                yield from (reply for one in pending if not one.cancelled() and not one.exception() for reply in one.result())
                raise
            except BaseException:
                _give_up(call, pool)
                raise
            finally:
                self._calls.discard(call)

    def _work_for(self, call: threading.Event) -> None:
        """This thread's requests are of that call of :meth:`together`."""
        self._of_thread.call = call

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt, and give whether there shall be none."""
        call: threading.Event = getattr(self._of_thread, "call", self._closed)
        return call.wait(seconds)

    def json(self, answer: httpx.Response) -> dict[str, Any]:
        """The object of an answer. Raises :class:`ServiceError` where it is no JSON."""
        try:
            said = answer.json()
        except ValueError as error:
            raise ServiceError(f"{self.url} does not answer in JSON\n    → Check the URL.") from error
        return said if isinstance(said, dict) else {}

    def refusal(self, status: int, told: str) -> ServiceError:
        """What a status means for whoever asked; a key that the service repeats is not told."""
        told = told.replace(self._key, "…") if self._key else told
        fix = {
            401: f"\n    → Give a key of the service: --key, key=…, or the variable {KEY_VARIABLE}.",
            403: "\n    → Ask for a key that may ask this model.",
            404: "\n    → Check the URL; GET /models lists the models.",
            429: "\n    → Ask with less concurrency, or raise serving.max_queue.",
        }.get(status, "")
        return ServiceError(f"{self.url} answers {status}: {told}{fix}", status)

    def _once(self, method: str, path: str, body: bytes | None, seconds: float) -> httpx.Response:
        """One attempt, read whole; it is given up where it takes longer."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        request = self._http.build_request(method, path, content=body, headers=headers, timeout=seconds)
        end = time.monotonic() + seconds
        answer = self._http.send(request, stream=True)
        try:
            assert isinstance(answer.stream, httpx.SyncByteStream)
            answer.stream = _Bounded(answer.stream, end)
            answer.read()
        finally:
            answer.close()
        return answer

    def _unreachable(self, error: httpx.TransportError, seconds: float) -> ServiceError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return ServiceError(
                f"{self.url} did not answer within {seconds:.3g} s\n    → Ask with smaller batches, or wait longer."
            )
        return ServiceError(
            f"{self.url} cannot be reached: {str(error) or type(error).__name__}"
            "\n    → Is the service running (`tunesmith serve status`), and is this its address?"
        )


def message(answer: httpx.Response) -> str:
    """The message of an error, as the service words it."""
    try:
        said = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200].strip() or answer.reason_phrase
    return str(said.get("message", said) if isinstance(said, dict) else said)


def _give_up(call: threading.Event, pool: ThreadPoolExecutor) -> None:
    """End what waits for another attempt, and wait for what is under way."""
    call.set()
    pool.shutdown(wait=True, cancel_futures=True)


def _good_first(done: Iterable[Future[list[Reply]]]) -> Iterator[Reply]:
    """The replies of finished requests; those that failed raise once the others have been handed over."""
    for one in sorted(done, key=lambda future: future.exception() is not None):
        yield from one.result()


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the service asks to wait: a number, or a date."""
    told = answer.headers.get("retry-after", "")
    if re.fullmatch(r"\d{1,6}", told):
        return float(told)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
