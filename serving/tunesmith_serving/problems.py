"""What a caller can be told, each with its status: the only errors whose words leave the service.

===  ================================================================================================================
401  no key, or a wrong one
403  the key may not ask this model
404  no such model, version or page
408  the body did not come in time
413  the body is too large, or what its images unpack to
422  the request cannot be used; the message names the field
429  too many requests wait already; ``Retry-After`` says when to come again
503  the model is not ready
504  the answer did not come in time
===  ================================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping


class Refused(Exception):
    """A request that gets an answer other than 200; the message is for its sender."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})

    @property
    def body(self) -> bytes:
        """The answer's JSON. What JSON can hold and UTF-8 cannot, half a surrogate pair, is written as its escape."""
        return json.dumps({"error": self.message}, ensure_ascii=False).encode("utf-8", "backslashreplace")


def invalid(where: str, what: str) -> Refused:
    """422: the field, and what is wrong with it."""
    return Refused(422, f"{where}: {what}" if where else what)


def unwieldy(where: str, what: str) -> Refused:
    """413: each example can be used, and all of them are too much for one request; clients send it in halves."""
    return Refused(413, f"{where}: {what}")


def missing(what: str) -> Refused:
    """404."""
    return Refused(404, what)


def slow(seconds: float) -> Refused:
    """408: the rest of the body is not waited for, so the connection is of no more use."""
    return Refused(408, f"body: was not here within {seconds:g} s", {"Connection": "close"})


def gone() -> Refused:
    """499, for the log: nobody reads it."""
    return Refused(499, "body: its sender has gone")


def busy(model: str, waiting: int, seconds: int = 1) -> Refused:
    """429, with the seconds after which to try again."""
    return Refused(429, f"{waiting} requests wait for {model} already: try again", {"Retry-After": str(max(1, seconds))})


def late(model: str, seconds: float) -> Refused:
    """504."""
    return Refused(504, f"{model} did not answer within {seconds:g} s")


def unready(model: str) -> Refused:
    """503."""
    return Refused(503, f"{model} is not ready", {"Retry-After": "1"})
