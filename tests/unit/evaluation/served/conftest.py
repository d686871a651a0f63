"""A server of others, and the command that judges its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.foreign import Foreign, fitted
from support.judged import ROWS, Judge, mapping
from support.served import listening
from tunesmith import cli
from tunesmith.evaluation import service as transport


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Foreign, str]]:
    """A foreign server, and the URL of its model."""
    made = Foreign(fitted(ROWS[:40]))
    with listening(made.app) as url:
        yield made, f"{url}/v2/models/words"


@pytest.fixture
def words(server: tuple[Foreign, str]) -> Foreign:
    """The server without a fault, and nothing asked."""
    made = server[0]
    made.fault, made.upper, made.logits, made.numbers, made.seconds, made.requests = None, False, False, False, 0.0, 0
    made.column, made.version, made.refuses = False, "7", set()
    made.asked.clear()
    return made


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[Foreign, str], words: Foreign) -> Judge:
    """``tunesmith evaluate URL …`` over 50 texts, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[40:]))
    mapping(words)
    arguments = ["--data", "data.jsonl", "--target", "target.yaml", "--out", "judged"]
    return lambda *more: CliRunner().invoke(cli.main, ["evaluate", server[1], *arguments, *more])
