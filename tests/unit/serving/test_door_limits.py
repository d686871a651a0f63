"""How long and how many: the queue, the deadline, and callers who do not say what they came for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.served import Service
from tunesmith_serving.reply import Answered
from unit.serving.conftest import Loaded, scripted

pytestmark = pytest.mark.unit


def test_a_full_queue_says_when_to_come_again(text: Loaded, tmp_path: Path) -> None:
    async def slow(examples: list[Any]) -> Answered:
        await asyncio.sleep(0.3)
        return Answered([{"label": "low", "probabilities": [0.1, 0.9]}] * len(examples))

    service = Service(tmp_path, scripted(text, slow), max_queue=3)

    async def ask() -> list[httpx.Response]:
        async with service.client() as client:
            return await asyncio.gather(*(client.post("/predict/text", json={"inputs": ["a"]}) for _ in range(10)))

    answers = asyncio.run(ask())
    assert sorted(one.status_code for one in answers) == [200] * 3 + [429] * 7
    refused = [one for one in answers if one.status_code == 429]
    assert all(int(one.headers["Retry-After"]) >= 1 for one in refused)
    assert service.served[0].open == 0


def test_the_deadline_ends_a_request_the_callers_or_the_models(text: Loaded, tmp_path: Path) -> None:
    async def never(examples: list[Any]) -> Answered:
        await asyncio.sleep(60)
        raise AssertionError

    service = Service(tmp_path, scripted(text, never), timeout_s=0.2)
    assert service.ask("POST", "/predict/text", json={"inputs": ["a"]}).status_code == 504
    answer = service.ask("POST", "/predict/text", json={"inputs": ["a"]}, headers={"X-Deadline-Seconds": "0.05"})
    assert (answer.status_code, answer.json()) == (504, {"error": "text did not answer within 0.05 s"})
    for wrong in ("soon", "-1", "0", "nan", "inf"):
        assert (
            service.ask("POST", "/predict/text", json={"inputs": ["a"]}, headers={"X-Deadline-Seconds": wrong}).status_code
            == 422
        )


async def stalled(
    service: Service, path: str, headers: dict[str, str], *after: dict[str, Any]
) -> tuple[int, dict[bytes, bytes], dict[str, str]]:
    """A request of which half the body comes, then ``after``, then nothing: the answer's status, headers and body."""
    sent: list[Any] = []
    coming = [{"type": "http.request", "body": b'{"inputs": [', "more_body": True}, *after]

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        await asyncio.sleep(10)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"Authorization": f"Bearer {service.key}", "Content-Length": "9999", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    await service.app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


@pytest.mark.parametrize("path", ["/predict/text", "/v2/models/text/infer"])
def test_a_body_that_does_not_come_is_not_waited_for(text: Loaded, tmp_path: Path, path: str) -> None:
    service = Service(tmp_path, scripted(text, None), timeout_s=0.3)
    for headers, seconds in (({}, "0.3"), ({"X-Deadline-Seconds": "0.1"}, "0.1")):
        status, told, body = asyncio.run(stalled(service, path, headers))
        assert (status, body) == (408, {"error": f"body: was not here within {seconds} s"})
        assert told[b"connection"] == b"close"
    assert service.served[0].open == 0


def test_bodies_that_do_not_come_take_places_in_the_queue(text: Loaded, tmp_path: Path) -> None:
    service = Service(tmp_path, scripted(text, None), timeout_s=0.3, max_queue=3)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(stalled(service, "/predict/text", {}) for _ in range(10)))

    assert sorted(status for status, _, _ in asyncio.run(ask())) == [408] * 3 + [429] * 7


def test_a_caller_who_goes_while_he_speaks_is_no_defect(text: Loaded, tmp_path: Path) -> None:
    service = Service(tmp_path, scripted(text, None))
    asyncio.run(stalled(service, "/predict/text", {}, {"type": "http.disconnect"}))
    (line,) = map(json.loads, service.log.read_text().splitlines())
    assert (line["event"], line["status"], service.served[0].open) == ("request", 499, 0)
