"""A client of a service: several requests at a time, repeated where that can help, answers in the order of what was asked.

>>> client = Client("http://127.0.0.1:8000/predict/reviews", key="tsk_…")  # doctest: +SKIP
>>> client.predict(["I loved it", "I want my money back"])  # doctest: +SKIP
[{'label': 'good', 'score': 0.98, 'scores': {'bad': 0.02, 'good': 0.98}}, …]
"""

from __future__ import annotations

import base64
import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from tunesmith.errors import DataError, ServiceError, UserError, nearest
from tunesmith.tasks.base import Example
from tunesmith_serving.describe import BYTES_KINDS
from tunesmith_serving.target import About, Reply

KEY_VARIABLE = "TUNESMITH_API_KEY"

PASSING = frozenset({429, 502, 503, 504})
"""Statuses that a later attempt may not meet again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 20.0
"""Seconds before the second attempt, doubled for each further one, and their ceiling."""
BODY_BYTES = 4 << 20
"""A request is sent once its inputs have so many bytes, though it has fewer than ``batch_size``."""
GREETING_SECONDS = 10.0
"""How long the first question, which models there are, is repeated: a wrong address should be told soon."""

_PATH = re.compile(
    r"^(?P<root>.*?)(?:/predict/(?P<plain>[^/]+)|/v2/models/(?P<v2>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/infer)?)?/?$"
)
_WHICH = re.compile(r"^inputs\[(\d+)\]")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """One model of a service. May be shared by threads."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        concurrency: int = 8,
        batch_size: int = 32,
        timeout: float = 60.0,
        deadline: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: ``http://HOST:PORT/predict/NAME`` or ``…/v2/models/NAME``; without a path where the service has one model.
            key: the API key; None is that of the variable ``TUNESMITH_API_KEY``, if there is one.
            concurrency: most requests under way at a time.
            batch_size: most examples of one request.
            timeout: seconds that one attempt may take.
            deadline: seconds that one request may take with all its attempts.
            transport: what sends the requests, instead of the network.

        Raises:
            UserError: no such URL, or a key that no header can carry.
        """
        import os

        self.url, self._model, self._version = _split(url)
        key = (key if key is not None else os.environ.get(KEY_VARIABLE, "")).strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                "the key has characters that no key has\n    → Copy it again: `tunesmith serve keys add` prints it."
            )
        self._concurrency, self._batch_size = max(1, concurrency), max(1, batch_size)
        self._deadline = deadline
        self._stopped = threading.Event()
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
            transport=transport,
            trust_env=urlsplit(self.url).hostname not in _LOOPBACK,  # what is on this machine is behind no proxy
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End what is under way, and let go of the connections."""
        self._stopped.set()
        self._http.close()

    @property
    def in_the_clear(self) -> bool:
        """Whether what is sent can be read on the way: plain HTTP to another machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in _LOOPBACK

    @cached_property
    def about(self) -> About:
        """The model, as the service describes it; asked once.

        Raises:
            ServiceError: it cannot be reached, refuses the key, or has no such model.
        """
        listed = self._json(self._send("GET", "/models", None, min(GREETING_SECONDS, self._deadline)))
        try:
            models = {one["name"]: one for one in listed["models"]}
            if self._model is None and len(models) != 1:
                raise ServiceError(
                    f"{self.url} has {len(models)} models that the key may ask: {', '.join(models) or 'none'}"
                    f"\n    → Name one: {self.url}/predict/NAME"
                )
            name = self._model or next(iter(models))
            if name not in models:
                close = nearest(name, models)
                hint = f"Did you mean {close!r}?" if close else f"Those that the key may ask: {', '.join(models) or 'none'}."
                raise ServiceError(f"{self.url} has no model {name!r}\n    → {hint}", 404)
            one = models[name]
            if self._version not in (None, one["versions"][0]):
                raise ServiceError(
                    f"{self.url} answers {name} with version {one['versions'][0]}, not {self._version}"
                    "\n    → Leave the version away."
                )
            return About(name, one["versions"][0], one["task"], tuple(one["labels"]), dict(one["inputs"]))
        except (KeyError, TypeError, IndexError) as error:
            raise ServiceError(f"{self.url}/models does not answer as Tunesmith does\n    → Check the URL.") from error

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """What the model says of each input, in their order.

        An input is a mapping by role (``{"text": …, "text_pair": …}``), or only the value of the first role. Images are bytes,
        a path, or a PIL image.

        Raises:
            DataError: inputs that the model cannot use: which, counted from 0, and why.
            ServiceError: the service refuses, or does not answer within the deadline.
        """
        found: dict[int, Reply] = {reply.index: reply for reply in self.replies([self._example(one) for one in inputs])}
        bad = sorted((reply for reply in found.values() if reply.problem is not None), key=lambda reply: reply.index)
        if bad:
            told = "\n".join(f"    input {reply.index}: {reply.problem}" for reply in bad[:10])
            raise DataError(f"{len(bad)} of {len(inputs)} inputs cannot be used:\n{told}")
        return [found[index].answer or {} for index in range(len(inputs))]

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A reply for each example, as they come in; at most ``concurrency`` requests are under way, and no more is read."""
        batches = self._batches(examples)
        with ThreadPoolExecutor(self._concurrency, "tunesmith-client") as pool:
            pending: set[Future[list[Reply]]] = set()
            try:
                for batch in batches:
                    pending.add(pool.submit(self._ask, batch))
                    while len(pending) >= self._concurrency:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        yield from _good_first(done)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from _good_first(done)
            except ServiceError:
                self._give_up(pool)
                yield from (reply for one in pending if not one.cancelled() and not one.exception() for reply in one.result())
                raise
            except BaseException:
                self._give_up(pool)
                raise

    def _give_up(self, pool: ThreadPoolExecutor) -> None:
        """End what waits for another attempt, and wait for what is under way."""
        self._stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
        self._stopped.clear()

    def _example(self, given: Any) -> dict[str, Any]:
        """An input as an example by role, media as bytes."""
        first = next(iter(self.about.columns))
        example = dict(given) if isinstance(given, Mapping) else {first: given}
        unknown = next((role for role in example if role not in self.about.columns), None)
        if unknown is not None:
            raise DataError(f"there is no input {unknown!r}: {self.about.name} takes {' and '.join(self.about.columns)}")
        return {role: _bytes(value) if self.about.columns[role] in BYTES_KINDS else value for role, value in example.items()}

    def _batches(self, examples: Iterable[Example]) -> Iterator[list[tuple[int, Any]]]:
        """Numbered inputs as they go over the wire, cut into requests."""
        columns = self.about.columns
        batch: list[tuple[int, Any]] = []
        size = 0
        for index, example in enumerate(examples):
            wire = {role: _on_the_wire(value) for role, value in example.items() if role in columns and value is not None}
            batch.append((index, wire))
            size += sum(len(value) if isinstance(value, str) else 64 for value in wire.values())
            if len(batch) >= self._batch_size or size >= BODY_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _ask(self, batch: list[tuple[int, Any]]) -> list[Reply]:
        """The replies of one request; one that is refused for an example is repeated without it, one too large in halves."""
        replies: list[Reply] = []
        while batch:
            body = json.dumps({"inputs": [wire for _, wire in batch]}, ensure_ascii=True).encode()
            answer = self._send("POST", f"/predict/{quote(self.about.name, safe='')}", body, self._deadline)
            if answer.status_code == 200:
                said = self._json(answer).get("predictions")
                if not isinstance(said, list) or len(said) != len(batch):
                    raise ServiceError(f"{self.url} did not answer every input of a request")
                return [*replies, *(Reply(index, one) for (index, _), one in zip(batch, said, strict=True))]
            told = _told(answer)
            if answer.status_code == 413 and len(batch) > 1:
                middle = len(batch) // 2
                return [*replies, *self._ask(batch[:middle]), *self._ask(batch[middle:])]
            place = 0 if answer.status_code == 413 else _place(told, len(batch))
            if place is None:
                raise self._refusal(answer.status_code, told)
            index, _ = batch.pop(place)
            replies.append(Reply(index, problem=_WHICH.sub("", told).lstrip(".: ")))
        return replies

    def _send(self, method: str, path: str, body: bytes | None, deadline: float) -> httpx.Response:
        """One request with all its attempts: an answer of 200, 413 or 422. Raises :class:`ServiceError` for any other."""
        end = time.monotonic() + deadline
        attempt = 0
        headers = {"Content-Type": "application/json"} if body is not None else {}
        while True:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311  # jitter
            try:
                answer = self._http.request(method, path, content=body, headers=headers)
                if answer.status_code in (200, 413, 422):
                    return answer
                last = self._refusal(answer.status_code, _told(answer))
                if answer.status_code not in PASSING:
                    raise last
                pause = max(pause, _retry_after(answer) * random.uniform(1, 1.5))  # noqa: S311  # not all at once again
            except httpx.TransportError as error:
                last = ServiceError(
                    f"{self.url} cannot be reached: {str(error) or type(error).__name__}"
                    "\n    → Is the service running (`tunesmith serve status`), and is this its address?"
                )
                if isinstance(error, httpx.UnsupportedProtocol):
                    raise last from error
            attempt += 1
            if time.monotonic() + pause > end:
                raise ServiceError(f"given up after {attempt} attempts in {deadline:g} s: {last}", last.status)
            if self._stopped.wait(pause):
                raise ServiceError("stopped while waiting for another attempt", last.status)

    def _json(self, answer: httpx.Response) -> Any:
        try:
            said = answer.json()
        except ValueError as error:
            raise ServiceError(f"{self.url} does not answer in JSON\n    → Check the URL.") from error
        return said if isinstance(said, dict) else {}

    def _refusal(self, status: int, told: str) -> ServiceError:
        """What a status means for whoever asked."""
        fix = {
            401: f"\n    → Give a key of the service: --key, key=…, or the variable {KEY_VARIABLE}.",
            403: "\n    → Ask for a key that may ask this model.",
            404: "\n    → Check the URL; GET /models lists the models.",
            429: "\n    → Ask with less concurrency, or raise serving.max_queue.",
        }.get(status, "")
        return ServiceError(f"{self.url} answers {status}: {told}{fix}", status)


def _split(url: str) -> tuple[str, str | None, str | None]:
    """Root, model and version of a URL. Raises :class:`UserError`.

    >>> _split("http://127.0.0.1:8000/predict/my%20model")
    ('http://127.0.0.1:8000', 'my model', None)
    >>> _split("https://host/models/v2/models/a/versions/2/infer")
    ('https://host/models', 'a', '2')
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # a wrong one is told only when it is asked for
    except ValueError as error:
        raise UserError(f"the address of the service is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{url!r} is no address of a service\n    → Write http://HOST:PORT/predict/NAME.")
    if "@" in parts.netloc:
        raise UserError(
            f"the address of the service has a user or a password in it\n    → Write {parts.scheme}://"
            f"{parts.netloc.rpartition('@')[2]}{parts.path}, and give the key apart."
        )
    if parts.query or parts.fragment:
        raise UserError("the address of the service has more than a path\n    → Write http://HOST:PORT/predict/NAME.")
    found = _PATH.match(parts.path)
    assert found is not None, "every path matches"
    name = found["plain"] or found["v2"]
    root = f"{parts.scheme}://{parts.netloc}{found['root']}".rstrip("/")
    return root, unquote(name) if name else None, unquote(found["version"]) if found["version"] else None


def _good_first(done: Iterable[Future[list[Reply]]]) -> Iterator[Reply]:
    """The replies of finished requests; those that failed raise once the others have been handed over."""
    for one in sorted(done, key=lambda future: future.exception() is not None):
        yield from one.result()


def _bytes(value: Any) -> Any:
    """A medium as the bytes of a file."""
    if isinstance(value, str | Path):
        try:
            return Path(value).read_bytes()
        except OSError as error:
            raise DataError(f"{value} cannot be read: {error.strerror}") from error
    if hasattr(value, "save"):  # a PIL image
        import io

        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return stream.getvalue()
    return value


def _on_the_wire(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes | bytearray) else value


def _told(answer: httpx.Response) -> str:
    """The message of an error, as the service words it."""
    try:
        said = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200].strip() or answer.reason_phrase
    return str(said)


def _place(told: str, size: int) -> int | None:
    """Which input of a request a message is about."""
    found = _WHICH.match(told)
    return int(found[1]) if found and int(found[1]) < size else None


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the service asks to wait: a number, or a date."""
    told = answer.headers.get("retry-after", "")
    if re.fullmatch(r"\d{1,6}", told):
        return float(told)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
