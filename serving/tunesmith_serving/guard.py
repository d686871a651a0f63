"""What every request passes: its id, its key, its size, its place in the log; and no error leaves but in our own words."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import UserError
from tunesmith_serving.describe import Description
from tunesmith_serving.keys import Key, KeyFile
from tunesmith_serving.metrics import Metrics
from tunesmith_serving.plain import DIGITS
from tunesmith_serving.problems import Refused, gone

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/v2/health/live", "/v2/health/ready", "/")
"""Paths without a key: the two health checks, and the playground's page, which is the same for everyone and knows nothing
before it is given a key."""
PAGES = ("/docs", "/openapi.json", "/metrics")
"""Paths that a browser may open with the key as the password, under any name."""

_ID = re.compile(r"^[\w.:/+=@-]{1,128}$", re.ASCII)
_LOG = logging.getLogger("tunesmith.serving")


@dataclass
class Facts:
    """What is known of one request; handlers add to it. Found as ``scope["state"]["facts"]``."""

    id: str
    key: Key | None = None
    route: str = ""
    model: str = ""
    version: str = ""
    examples: int = 0
    status: int = 0
    after: Callable[[], None] | None = None
    """Called once the caller has a good answer."""
    start: float = field(default_factory=time.perf_counter)


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, keys: KeyFile, metrics: Metrics, *, max_body: Callable[[], int], echo_id: bool = True) -> None:
        """``max_body`` says how many bytes. ``echo_id`` adds ``X-Request-ID`` to answers, where nobody else does."""
        self._app, self._keys, self._metrics = app, keys, metrics
        self._max_body, self._echo_id = max_body, echo_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's event loop, as ASGI has it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        facts = Facts(given if _ID.match(given) else secrets.token_hex(16))
        scope.setdefault("state", {})["facts"] = facts
        started = False

        async def tell(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started, facts.status = True, message["status"]
                if self._echo_id:
                    message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", facts.id.encode())]}
            await send(message)

        try:
            facts.key = self._admit(scope, headers)
            await self._app(scope, self._limited(receive, headers), tell)
        except Refused as refused:
            await _refuse(refused, tell)
        except Exception:
            _LOG.exception("request %s failed", facts.id)
            facts.status = facts.status or 500
            if not started:
                await _refuse(Refused(500, f"something went wrong here; it is logged under {facts.id}"), tell)
        finally:
            self._record(scope, facts)
        if facts.after is not None and facts.status == 200:
            facts.after()

    def _admit(self, scope: Scope, headers: dict[str, str]) -> Key | None:
        """The request's key. Raises :class:`Refused` (401) without a good one, where one is needed."""
        path = scope["path"]
        if path in OPEN:
            return None
        secret = _secret(headers)
        try:
            key = self._keys.find(secret) if secret else None
        except UserError as error:
            _LOG.error("%s", error)
            raise Refused(503, "the keys of this service cannot be read") from error
        if key is None:
            what = "wrong key" if secret else "this needs a key: Authorization: Bearer KEY, or X-API-Key: KEY"
            raise Refused(401, what, {"WWW-Authenticate": 'Basic realm="tunesmith"' if path in PAGES else "Bearer"})
        return key

    def _limited(self, receive: Receive, headers: dict[str, str]) -> Receive:
        """The request's body, as far as it is not too large and its sender stays. Raises :class:`Refused` (413, 499)."""
        told = headers.get("content-length", "")
        if DIGITS.match(told) and int(told) > self._max_body():
            raise self._too_large()
        seen, whole = 0, False

        async def limited() -> MutableMapping[str, Any]:
            nonlocal seen, whole
            message = await receive()
            if message["type"] == "http.request":
                seen, whole = seen + len(message.get("body", b"")), not message.get("more_body", False)
                if seen > self._max_body():
                    raise self._too_large()
            elif not whole:
                raise gone()
            return message

        return limited

    def _too_large(self) -> Refused:
        return Refused(413, f"body: is larger than the {self._max_body() / 2**20:.3g} MiB taken here", {"Connection": "close"})

    def _record(self, scope: Scope, facts: Facts) -> None:
        """One line of log, one observation; never an input, never a key."""
        seconds = time.perf_counter() - facts.start
        status = facts.status or 499
        route = facts.route or getattr(scope.get("route"), "path", "")
        self._metrics.finished(route, status, facts.model, facts.version, seconds)
        if scope["path"] in OPEN[:2]:
            return
        fields = {
            "id": facts.id,
            "method": scope["method"],
            "route": route or "unknown",
            "status": status,
            "ms": round(1000 * seconds, 2),
            "model": facts.model,
            "version": facts.version,
            "key": facts.key.name if facts.key else None,
            "examples": facts.examples,
        }
        _LOG.info("request", extra={"fields": fields})


async def _refuse(refused: Refused, send: Send) -> None:
    body = refused.body
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    pairs = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _secret(headers: dict[str, str]) -> str:
    """The key that a request brings: as bearer token, as ``X-API-Key``, or as the password of a browser."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return headers.get("x-api-key", "").strip()


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_model(about: Description) -> None:
    """One line for a model that is served from now on, and what computes it."""
    fields = {"model": about.name, "version": about.version, "task": about.task, "backend": about.backend}
    _LOG.info("model", extra={"fields": fields})


def log_to(path: str | None) -> None:
    """Write the service's log to a file as JSON lines, or to standard error where there is none."""
    handler: logging.Handler = logging.FileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for old in _LOG.handlers:
        old.close()
    _LOG.handlers, _LOG.propagate = [handler], False
    _LOG.setLevel(logging.INFO)
