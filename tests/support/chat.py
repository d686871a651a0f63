"""A server of the OpenAI protocol that knows nothing of Tunesmith: it answers a text by what a table says of it.

Of a text that the table lacks it says something else each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "sk-secret-of-the-tests"


def error(status: int, said: str) -> Response:
    """An error as the protocol has it."""
    return JSONResponse({"error": {"message": said, "type": "invalid_request_error", "code": None}}, status)


class Chat:
    """The server of the model ``parrot``: the text is what stands behind the prompt's last ``: ``."""

    def __init__(self, says: Mapping[str, str]) -> None:
        self.says = dict(says)
        self.asked: list[dict[str, Any]] = []
        """The bodies of the requests that were answered."""
        self.models = ["parrot"]
        self.key = ""
        """The key that it wants; empty for none."""
        self.breaks_after: int | None = None
        """Answers after which it answers 500."""
        self.busy = 0
        """Requests that it answers 429 yet."""
        self.refuses: set[str] = set()
        """Texts that it answers 400."""
        self.said: Response | None = None
        """What it answers instead of a completion."""
        self.seconds = 0.0
        self.app = Starlette(
            routes=[
                Route("/v1/models", self.listed),
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
            ]
        )

    @property
    def texts(self) -> list[str]:
        """What was asked about, in the order of the answers."""
        return [self._text(body) for body in self.asked]

    async def listed(self, request: Request) -> Response:
        """Its models."""
        if refused := self._refused(request):
            return refused
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def complete(self, request: Request) -> Response:
        """One answer."""
        body = await request.json()
        await asyncio.sleep(self.seconds)
        if refused := self._refused(request):
            return refused
        if body["model"] not in self.models:
            return error(404, f"The model `{body['model']}` does not exist.")
        if self.busy:
            self.busy -= 1
            return Response("{}", 429, {"Retry-After": "0"})
        if self.breaks_after is not None and len(self.asked) >= self.breaks_after:
            return error(500, "it broke")
        if self._text(body) in self.refuses:
            return error(400, "This model's maximum context length is 4 tokens.")
        self.asked.append(body)
        message = {"role": "assistant", "content": self.says.get(self._text(body), f"This is answer {len(self.asked)}.")}
        return self.said or JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _refused(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return error(401, f"Incorrect API key provided: {given}.") if self.key and given != self.key else None

    def _text(self, body: Mapping[str, Any]) -> str:
        return str(body["messages"][-1]["content"].rpartition(": ")[2])
