"""The client: what can pass is repeated, what cannot is said, answers belong to their questions, the key stays a secret."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import tunesmith
from tunesmith.errors import DataError, ServiceError, UserError
from tunesmith.evaluation import service as module
from tunesmith_serving.client import Client

pytestmark = pytest.mark.unit

MODELS = {
    "models": [{"name": "m", "versions": ["1"], "task": "text-classification", "labels": ["a"], "inputs": {"text": "text"}}]
}
KEY = "tsk_0123456789abcdef0123456789"


class Script:
    """A service of one's own making: ``answer`` gets the inputs of each request and which request it is, from 0."""

    def __init__(self, answer: Callable[[list[Any], int], httpx.Response]) -> None:
        self.answer = answer
        self.asked: list[list[Any]] = []
        self.open = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models":
            return httpx.Response(200, json=MODELS)
        inputs = [one["text"] for one in json.loads(request.content)["inputs"]]
        with self._lock:
            number = len(self.asked)
            self.asked.append(inputs)
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            return self.answer(inputs, number)
        finally:
            with self._lock:
                self.open -= 1


def told(inputs: list[Any]) -> httpx.Response:
    return httpx.Response(200, json={"predictions": [{"label": str(one).upper()} for one in inputs]})


def connect(answer: Callable[[list[Any], int], httpx.Response], **options: Any) -> tuple[Client, Script]:
    script = Script(answer)
    return Client("http://here/predict/m", KEY, transport=httpx.MockTransport(script), **options), script


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)


def test_it_is_to_be_had_from_the_package_itself() -> None:
    assert tunesmith.Client is Client


def test_answers_stand_in_the_order_of_the_inputs_and_requests_are_bounded() -> None:
    def slowly(inputs: list[Any], number: int) -> httpx.Response:
        time.sleep(0.05 if number % 3 == 0 else 0.01)
        return told(inputs)

    client, script = connect(slowly, batch_size=2, concurrency=3)
    words = [f"w{k}" for k in range(31)]
    assert [one["label"] for one in client.predict(words)] == [word.upper() for word in words]
    assert 2 <= script.most <= 3
    assert sorted(len(one) for one in script.asked) == [1] + [2] * 15


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_can_pass_is_asked_again(status: int) -> None:
    client, script = connect(
        lambda inputs, number: told(inputs) if number >= 2 else httpx.Response(status, json={"error": "x"})
    )
    assert client.predict(["a"]) == [{"label": "A"}]
    assert len(script.asked) == 3


def test_a_broken_connection_is_asked_again() -> None:
    def breaks(inputs: list[Any], number: int) -> httpx.Response:
        if number == 0:
            raise httpx.ReadError("gone")
        return told(inputs)

    assert connect(breaks)[0].predict(["a"]) == [{"label": "A"}]


def test_retry_after_is_kept() -> None:
    first = httpx.Response(429, json={"error": "full"}, headers={"Retry-After": "1"})
    client, _ = connect(lambda inputs, number: told(inputs) if number else first)
    start = time.monotonic()
    client.predict(["a"])
    assert time.monotonic() - start >= 1


def test_the_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.2)
    pauses: list[float] = []
    client, _ = connect(lambda inputs, number: told(inputs) if number >= 8 else httpx.Response(503))
    monkeypatch.setattr(client._service, "_pause", pauses.append)
    client.predict(["a"])
    for attempt, pause in enumerate(pauses):
        whole = min(20.0, 0.2 * 2**attempt)
        assert whole / 2 <= pause <= whole
    assert len(pauses) == 8


def test_it_gives_up_after_the_deadline() -> None:
    client, script = connect(lambda inputs, number: httpx.Response(503, json={"error": "m is not ready"}), deadline=0.3)
    with pytest.raises(ServiceError, match=r"given up after \d+ attempts in 0.3 s(.|\n)*503: m is not ready") as caught:
        client.predict(["a"])
    assert caught.value.status == 503
    assert len(script.asked) > 2


@pytest.mark.parametrize(("status", "says"), [(401, "TUNESMITH_API_KEY"), (403, "may ask this model"), (404, "Check the URL")])
def test_what_cannot_pass_is_said_at_once(status: int, says: str) -> None:
    client, script = connect(lambda inputs, number: httpx.Response(status, json={"error": "no"}))
    with pytest.raises(ServiceError, match=says) as caught:
        client.predict(["a"])
    assert (caught.value.status, caught.value.exit_code, len(script.asked)) == (status, 2, 1)


def test_a_bad_input_is_told_by_its_place_and_the_others_are_answered() -> None:
    def picky(inputs: list[Any], number: int) -> httpx.Response:
        bad = next((k for k, one in enumerate(inputs) if one.startswith("bad")), None)
        return told(inputs) if bad is None else httpx.Response(422, json={"error": f"inputs[{bad}].text: is bad"})

    client, _ = connect(picky, batch_size=4)
    words = ["a", "bad1", "b", "bad2", "c", "d", "bad3"]
    replies = sorted(client.replies([{"text": word} for word in words]), key=lambda one: one.index)
    assert [one.problem for one in replies] == [None, "text: is bad", None, "text: is bad", None, None, "text: is bad"]
    assert [one.answer["label"] for one in replies if one.answer] == ["A", "B", "C", "D"]
    with pytest.raises(DataError, match=r"3 of 7 inputs(.|\n)*input 1: text: is bad(.|\n)*input 6"):
        client.predict(words)


def test_a_refusal_that_names_no_input_is_no_endless_loop() -> None:
    client, script = connect(lambda inputs, number: httpx.Response(422, json={"error": "inputs[9]: what?"}))
    with pytest.raises(ServiceError, match="422: inputs"):
        client.predict(["a", "b"])
    assert len(script.asked) == 1


def test_what_is_too_large_goes_in_smaller_parts() -> None:
    def small(inputs: list[Any], number: int) -> httpx.Response:
        too_large = sum(map(len, inputs)) > 10
        return httpx.Response(413, json={"error": "body: is larger"}) if too_large else told(inputs)

    client, _ = connect(small)
    replies = sorted(client.replies([{"text": "x" * n} for n in (4, 4, 20, 4, 4)]), key=lambda one: one.index)
    assert [one.problem for one in replies] == [None, None, "body: is larger", None, None]


def test_a_service_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_SECONDS", 0.2)
    with pytest.raises(ServiceError, match=r"cannot be reached(.|\n)*Is the service running"):
        Client("http://127.0.0.1:9/predict/m", KEY).predict(["a"])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/predict/m", "no address"),
        ("host:80", "no address"),
        ("http://me:secret@host/predict/m", "a user or a password"),
        ("http://host:port/", "no URL"),
        ("http://host/predict/m?key=secret", "more than a path"),
    ],
)
def test_a_url_that_is_none_is_said(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        Client(url, KEY)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://here/predict/n", "Did you mean 'm'|has no model 'n'"),
        ("http://here/v2/models/m/versions/7", "no version 7 of m(.|\n)*It has 1"),
    ],
)
def test_a_model_that_is_not_there_is_said(url: str, says: str) -> None:
    client = Client(url, KEY, transport=httpx.MockTransport(Script(lambda inputs, number: told(inputs))))
    with pytest.raises(ServiceError, match=says):
        client.predict(["a"])


def test_the_version_of_the_url_is_asked_and_the_one_that_answers_is_told() -> None:
    versions: list[str | None] = []

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{**MODELS["models"][0], "versions": ["1", "2"]}]})
        versions.append(request.headers.get("X-Model-Version"))
        return httpx.Response(200, json={"version": versions[-1] or "1", "predictions": [{"label": "A"}]})

    for path, version in (("v2/models/m/versions/2", "2"), ("v2/models/m", None)):
        client = Client(f"http://here/{path}", KEY, transport=httpx.MockTransport(service))
        (reply,) = client.replies([{"text": "a"}])
        assert (versions.pop(), client.version, reply.version) == (version, version or "1", version or "1")


def test_a_version_with_other_classes_than_the_first_is_not_read_by_its_labels() -> None:
    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{**MODELS["models"][0], "versions": ["1", "2"]}]})
        said = {"label": "x", "score": 0.9, "scores": {"x": 0.9, "y": 0.1}}
        return httpx.Response(200, json={"version": "2", "predictions": [said]})

    client = Client("http://here/v2/models/m/versions/2", KEY, transport=httpx.MockTransport(service))
    with pytest.raises(ServiceError, match="version 2 of m tells the classes x, y"):
        client.predict([{"text": "a"}])


def test_the_only_model_needs_no_name() -> None:
    client = Client("http://here", KEY, transport=httpx.MockTransport(Script(lambda inputs, number: told(inputs))))
    assert client.predict(["a"]) == [{"label": "A"}]


def test_the_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = connect(lambda inputs, number: httpx.Response(401, json={"error": "wrong key"}))
    with pytest.raises(ServiceError) as caught:
        client.predict(["a"])
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in repr(client)
    with pytest.raises(UserError) as caught_too:
        Client("http://here", KEY + "\u2026")
    assert KEY not in "".join(traceback.format_exception(caught_too.value))


def test_after_a_failure_the_client_can_be_used_again() -> None:
    client, _ = connect(
        lambda inputs, number: told(inputs) if number else httpx.Response(500, json={"error": "logged under 1"})
    )
    with pytest.raises(ServiceError, match="500: logged under 1"):
        client.predict(["a"])
    assert client.predict(["a"]) == [{"label": "A"}]


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("http://127.0.0.1:1/predict/m", False),
        ("http://[::1]:1", False),
        ("https://host/", False),
        ("http://host/predict/m", True),
    ],
)
def test_a_key_that_goes_unencrypted_is_known(url: str, clear: bool) -> None:
    assert Client(url, KEY).in_the_clear is clear


def test_answers_that_came_in_are_handed_over_before_a_failure_is_raised() -> None:
    def one_fails(inputs: list[Any], number: int) -> httpx.Response:
        if inputs == ["w2"]:
            return httpx.Response(500, json={"error": "no"})
        time.sleep(0.3)
        return told(inputs)

    client, script = connect(one_fails, batch_size=1, concurrency=4)
    found: list[int] = []
    with pytest.raises(ServiceError, match="500"):
        found.extend(reply.index for reply in client.replies([{"text": f"w{k}"} for k in range(40)]))
    assert sorted([f"w{index}" for index in found] + ["w2"]) == sorted(one for asked in script.asked for one in asked)
    assert len(script.asked) < 12
