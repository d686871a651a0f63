"""The load of ``bench_serve.py``, in a process of its own: so many clients, each with one request under way at a time.

Plain sockets that stay open, because a client library costs more than some of the servers do. Prints one line of JSON.

    python tests/benchmarks/serve_load.py URL --bodies FILE --clients 32 --warm 5 --seconds 12
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

LIMIT = 60.0
"""Seconds that an answer may take."""


async def client(
    address: tuple[str, int], requests: list[bytes], first: int, step: int, end: float
) -> list[tuple[float, float]]:
    """When each answer came, and the seconds it took. Raises where one is not 200."""
    told = []
    reader, writer = await asyncio.open_connection(*address)
    try:
        index = first
        while time.perf_counter() < end:
            start = time.perf_counter()
            writer.write(requests[index % len(requests)])
            status, body = await asyncio.wait_for(answer(reader), LIMIT)
            assert status == 200, (status, body[:300])
            now = time.perf_counter()
            told.append((now, now - start))
            index += step
    finally:
        writer.close()
    return told


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one HTTP/1.1 answer, by its Content-Length or in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
    if "content-length" in fields:
        return status, await reader.readexactly(int(fields["content-length"]))
    body = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, body


async def measure(
    url: str, bodies: list[bytes], headers: dict[str, str], clients: int, warm: float, seconds: float
) -> dict[str, float]:
    """Requests/s and the seconds of an answer after the warm-up, and what the load itself cost."""
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    told = "".join(f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc, **headers}.items())
    requests = [f"POST {parts.path} HTTP/1.1\r\n{told}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    begin = time.perf_counter() + warm
    end = begin + seconds
    own = time.process_time()
    found = await asyncio.gather(*(client(address, requests, one, clients, end) for one in range(clients)))
    own = time.process_time() - own
    took = np.array([spent for one in found for now, spent in one if begin < now <= end])
    return {
        "requests": len(took),
        "per_second": len(took) / seconds,
        "p50": float(np.percentile(took, 50)),
        "p95": float(np.percentile(took, 95)),
        "load_cores": own / (warm + seconds),
    }


def main() -> None:
    """Ask, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--bodies", type=Path, required=True, help="a folder with one file for each body")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--warm", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    bodies = [file.read_bytes() for file in sorted(options.bodies.iterdir())]
    headers = dict(pair.split("=", 1) for pair in options.header)
    print(json.dumps(asyncio.run(measure(options.url, bodies, headers, options.clients, options.warm, options.seconds))))


if __name__ == "__main__":
    main()
