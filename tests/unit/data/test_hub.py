"""A Hub id is fetched through ``datasets`` from what ``HF_ENDPOINT`` names: here a small server that speaks the Hub's API."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest

pytestmark = pytest.mark.unit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "train.csv": b"text,label\n" + b"".join(b"text %d,%d\n" % (i, i % 2) for i in range(30)),
    "test.csv": b"text,label\nlast,1\n",
}


class Hub(BaseHTTPRequestHandler):
    """The read-only part of the Hub's API, for one data set ``org/reviews``."""

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.json([entry(name) for name in asked.get("paths", []) if name in FILES])

    def answer(self, send: bool = True) -> None:
        path = urlparse(self.path).path
        resolved = re.fullmatch(r"/datasets/org/reviews/resolve/[^/]+/(.+)", path)
        if resolved and resolved[1] in FILES:
            data = FILES[resolved[1]]
            self.send_response(200)
            for name, value in {"X-Repo-Commit": COMMIT, "ETag": etag(data), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if send:
                self.wfile.write(data)
        elif re.fullmatch(r"/api/datasets/org/reviews/tree/.+", path):
            self.json([entry(name) for name in FILES])
        elif re.fullmatch(r"/api/datasets/org/reviews(/revision/.+)?", path):
            info = {
                "_id": "1",
                "id": "org/reviews",
                "sha": COMMIT,
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
            }
            self.json({**info, "siblings": [{"rfilename": name} for name in FILES]})
        else:
            ours = path.startswith(("/datasets/org/reviews/", "/api/datasets/org/reviews"))
            self.json({"error": "not found"}, 404, "EntryNotFound" if ours else "RepoNotFound")

    def json(self, value: object, status: int = 200, error: str | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def entry(name: str) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(FILES[name]), "oid": etag(FILES[name]).strip('"')}


def etag(data: bytes) -> str:
    return f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"'


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def fetched(code: str, home: Path, **env: str) -> str:
    """What code prints in a process of its own: Hugging Face's libraries read their environment when they are imported."""
    code = f"from tunesmith.data.sources import resolve_splits\nfrom tunesmith.errors import DataError\n{code}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", **env}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_data_set_of_the_hub_is_read_with_its_splits(endpoint: str, tmp_path: Path) -> None:
    code = (
        "from tunesmith.recipe.data import DataSection\n"
        "found = resolve_splits(DataSection(train='hf://org/reviews'), '')\n"
        "rows = {name: [r for c in sources[0].chunks() for r in c.table.to_pylist()] for name, sources in found.items()}\n"
        "print({name: found[-1] for name, found in rows.items()})\n"
        "found = resolve_splits(DataSection(train='hf://org/reviews@main/test'), '')\n"
        "print(list(found), found['train'][0].content_hash())\n"
    )
    out = fetched(code, tmp_path, HF_ENDPOINT=endpoint)
    assert "{'train': {'text': 'text 29', 'label': 1}, 'test': {'text': 'last', 'label': 1}}" in out
    assert "['train'] " in out
    assert fetched(code, tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1") == out, "offline, from the cache"


REFUSED = """
from tunesmith.recipe.data import DataSection
try:
    resolve_splits(DataSection(train="{spec}"), "")
except DataError as error:
    print(error)
"""


def test_what_the_hub_does_not_have_is_said(endpoint: str, tmp_path: Path) -> None:
    out = fetched(REFUSED.format(spec="hf://org/revews"), tmp_path, HF_ENDPOINT=endpoint)
    assert "hf://org/revews: the Hub has no such data set, or it is private" in out
    assert "HF_TOKEN" in out


def test_an_unreachable_hub_is_said_with_the_remedy(tmp_path: Path) -> None:
    out = fetched(REFUSED.format(spec="hf://org/reviews"), tmp_path, HF_HUB_OFFLINE="1")
    assert "cannot reach the Hugging Face Hub" in out
    assert "HF_ENDPOINT" in out
