"""One HTTP/1.1 connection of the load, kept open, on plain streams: a client library costs more than some servers do.

``docs/benchmarks.md`` says what this client can ask of a server that does nothing, beside httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from tunesmith.evaluation.service import key_of

NOT_ANSWERED = 0
"""The status of a request that has none: refused, cut off, or too late."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and what stands before each body."""

    host: str
    port: int
    head: bytes
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str, key: str | None = None) -> Endpoint:
        """The endpoint of a URL; without a key that of the environment, as :func:`tunesmith.evaluation.service.key_of`.

        Raises :class:`UserError` for a key that no header can carry.
        """
        parts, key = urlsplit(url), key_of(key)
        secure = parts.scheme == "https"
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
        lines += [f"Authorization: Bearer {key}"] if key else []
        head = "\r\n".join(lines).encode() + b"\r\nContent-Length: "
        host = parts.hostname or "127.0.0.1"
        return cls(host, parts.port or (443 if secure else 80), head, ssl.create_default_context() if secure else None)

    def request(self, body: bytes) -> bytes:
        """The whole request."""
        return self.head + str(len(body)).encode() + b"\r\n\r\n" + body


class Connection:
    """Opened when it is first used, and again when it was closed.

    Servers close connections that are idle for some seconds. That is no error of theirs: where one ended before anything of an
    answer came, the request goes out once more on a new one, as RFC 9112 (9.3.1) has clients do.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        """``timeout`` is the seconds that an answer may take, the connection included."""
        self._endpoint, self._timeout = endpoint, timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """The status of the answer, all of which is read; :data:`NOT_ANSWERED` where there is none in time."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            self.close()
            return NOT_ANSWERED

    def close(self) -> None:
        """Let go of it."""
        if self._streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._streams[1].close()
        self._streams = None

    async def _exchange(self, request: bytes) -> int:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[0].exception()):
            self.close()
        reused = self._streams is not None
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._endpoint.host, self._endpoint.port, ssl=self._endpoint.tls, limit=1 << 20
            )
        reader, writer = self._streams
        writer.write(request)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            if not reused or (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                raise
            self.close()
            return await self._exchange(request)
        status = int(head.split(" ", 2)[1])
        fields = dict(line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
        if "content-length" in fields:
            await reader.readexactly(int(fields["content-length"]))
        else:
            while size := int((await reader.readline()).strip() or b"0", 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        if "close" in fields.get("connection", ""):
            self.close()
        return status
