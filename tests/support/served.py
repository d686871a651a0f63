"""A service in this process: the front door over models in memory, asked through ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import Example
from tunesmith_serving.describe import Description
from tunesmith_serving.door import build
from tunesmith_serving.guard import log_to
from tunesmith_serving.keys import KeyFile
from tunesmith_serving.metrics import Metrics
from tunesmith_serving.mirror import Mirror
from tunesmith_serving.reply import Answered, Backend
from tunesmith_serving.shelf import Served, Shelf


class Scripted:
    """A model of one's own making behind the door: ``answers`` is asked for each request."""

    def __init__(self, description: Description, answers: Callable[[list[Example]], Awaitable[Answered]]) -> None:
        self.description, self.answers, self.up = description, answers, True

    async def answer(self, examples: Any, timeout: float | None = None) -> Answered:
        return await self.answers(list(examples))

    async def ready(self) -> bool:
        return self.up


class Service:
    """The door with a key for all models; ``ask`` runs requests against it in one event loop."""

    def __init__(self, folder: Path, *backends: Backend, **settings: Any) -> None:
        self.keys = KeyFile(folder / "keys.json")
        self.key = self.keys.add("tester")
        self.log = folder / "log.jsonl"
        self.served = [Served(one, ServingSection(**settings)) for one in backends]
        self.pairs = folder / "pairs.jsonl"
        log_to(str(self.log))
        metrics = Metrics()
        self.shelf = Shelf(self.served, metrics, Mirror(metrics, str(self.pairs), within=1.0))
        self.app = build(self.shelf, self.keys)

    def client(self, key: str | None = "") -> httpx.AsyncClient:
        """A client with the service's key, another one, or (None) none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key or self.key}"}
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers)

    def ask(self, method: str, path: str, key: str | None = "", **request: Any) -> httpx.Response:
        """One request."""

        async def once() -> httpx.Response:
            async with self.client(key) as client:
                return await client.request(method, path, **request)

        return asyncio.run(once())


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """An ASGI application on a free port of this machine, in a thread of this process; its URL."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
