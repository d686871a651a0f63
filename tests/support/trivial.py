"""An HTTP server that does next to nothing, on plain asyncio, in a thread: what a load is measured against."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator

Answer = Callable[[int], Awaitable[int]]
"""The status of a request, by its number from 0."""


async def at_once(number: int) -> int:
    """200, without a pause."""
    return 200


@contextlib.contextmanager
def trivial(answer: Answer = at_once, keep_alive: float | None = None) -> Iterator[str]:
    """Its URL. It closes connections that are idle for ``keep_alive`` seconds."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    numbers, port = itertools.count(), [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                async with asyncio.timeout(keep_alive):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                size = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                await reader.readexactly(size)
                status = await answer(next(numbers))
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        port[0] = server.sockets[0].getsockname()[1]
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve_forever()

    def run() -> None:
        asyncio.set_event_loop(loop)
        main_task = loop.create_task(main())
        tasks.append(main_task)
        loop.run_until_complete(main_task)
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    tasks: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(10)
