"""The front door: keys on every route, limits, and an answer in our own words for everything that goes wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.served import Service
from tunesmith.tasks.base import TensorSpec
from tunesmith_serving import v2 as protocol
from tunesmith_serving.describe import Description
from tunesmith_serving.problems import Refused
from tunesmith_serving.reply import Answered
from unit.serving.conftest import Loaded, scripted

pytestmark = pytest.mark.unit

OPEN = {"/v2/health/live", "/v2/health/ready"}


def routes(service: Service) -> list[tuple[str, str]]:
    """Every route that the service has, with the documentation's and the metrics'."""
    listed = service.ask("GET", "/openapi.json").json()["paths"]
    found = [(method.upper(), path.format(name="text", version="1")) for path, methods in listed.items() for method in methods]
    assert len(found) >= 12
    return [*found, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/no/such/page"), ("OPTIONS", "/models")]


def test_every_route_but_health_wants_a_key_that_is_good_now(service: Service) -> None:
    revoked = service.keys.add("gone")
    every = routes(service)
    service.keys.revoke("gone")
    for method, path in every:
        for key in (None, "wrong", revoked, service.key[:-1]):
            answer = service.ask(method, path, key=key)
            if path in OPEN:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 401, (method, path, key)
                assert set(answer.json()) == {"error"}
                assert "WWW-Authenticate" in answer.headers
        assert service.ask(method, path).status_code != 401


@pytest.mark.parametrize("header", ["bearer", "x-api-key", "basic"])
def test_a_key_may_come_in_three_ways(service: Service, header: str) -> None:
    given = {
        "bearer": {"Authorization": f"bearer {service.key}"},
        "x-api-key": {"X-API-Key": service.key},
        "basic": {"Authorization": "Basic " + base64.b64encode(f"me:{service.key}".encode()).decode()},
    }[header]
    assert service.ask("GET", "/models", key=None, headers=given).status_code == 200


def test_a_key_asks_only_its_models(service: Service) -> None:
    narrow = service.keys.add("narrow", ["other"])
    for method, path in (
        ("POST", "/predict/text"),
        ("GET", "/v2/models/text"),
        ("POST", "/v2/models/text/infer"),
        ("GET", "/v2/models/text/ready"),
    ):
        answer = service.ask(method, path, key=narrow, json={"inputs": ["word1"]} if method == "POST" else None)
        assert answer.status_code == 403, path
        assert "narrow" in answer.json()["error"]
    assert service.ask("GET", "/models", key=narrow).json() == {"models": []}


def test_models_says_what_the_playground_needs(service: Service) -> None:
    assert service.ask("GET", "/models").json()["models"] == [
        {
            "name": "text",
            "versions": ["1"],
            "task": "text-classification",
            "input": "text",
            "inputs": {"text": "text"},
            "labels": ["high", "low"],
            "backend": "torch",
        }
    ]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/predict/txet", 404, "no model 'txet'"),
        ("/v2/models/text/versions/9/infer", 404, "no version '9'"),
        ("/nothing", 404, "no such page"),
        ("/models", 405, "POST"),
    ],
)
def test_what_is_not_there_is_said(service: Service, path: str, status: int, says: str) -> None:
    answer = service.ask("POST", path, json={"inputs": ["word1"]})
    assert answer.status_code == status
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body: is not JSON"),
        (b"{", "body: is not JSON"),
        (b"\xff\xfe", "body: is not UTF-8 (byte 0)"),
        (b"[]", "body: is a list"),
        (b"[" * 100_000, "body: is"),
        (b'{"inputs": NaN}', "NaN"),
        (b"{}", "inputs: is missing"),
        (b'{"inputs": "word1"}', "inputs: is text, not a list"),
        (b'{"inputs": []}', "inputs: is empty"),
        (b'{"inputs": [3]}', "inputs[0].text: is a number, not text"),
        (b'{"inputs": ["word1", null]}', "inputs[1].text: is missing"),
        (b'{"inputs": ["word1", ""]}', "inputs[1]: text is empty"),
        (b'{"inputs": ["   "]}', "inputs[0]: text is empty"),
        (b'{"inputs": [{"txt": "a"}]}', "inputs[0].txt"),
        (b'{"inputs": [{"text": "a", "text_pair": "b"}]}', "inputs[0].text_pair"),
        (b'{"inputs": [{"text": "a", "label": "high"}]}', "inputs[0].label"),
        (b'{"inputs": ["\\ud800"]}', "inputs[0].text: has half a character at 0"),
        (b'{"inputs": ["a"], "input": 1}', "input: there is no such field"),
        (b'{"inputs": ["a"], "id": 7}', "id: is no text"),
        (json.dumps({"inputs": ["a"] * 1025}).encode(), "inputs: has 1,025 examples"),
        (json.dumps({"inputs": [3] * 1025}).encode(), "inputs: has 1,025 examples"),
        (b'{"\\ud800": 1}', "\ud800: there is no such field"),
    ],
)
def test_a_request_that_cannot_be_used_names_the_field(service: Service, body: bytes, says: str) -> None:
    answer = service.ask("POST", "/predict/text", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert says in answer.json()["error"]


def v2(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["word1"], **changes}]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "inputs: is missing"),
        ({"inputs": 3}, "inputs: is a number"),
        ({"inputs": [3]}, "inputs[0].name"),
        (v2(name="txt"), "inputs[0].name: is 'txt'; text takes text"),
        (v2(name=[]), "inputs[0].name: is []; text takes text"),
        (v2(datatype="FP32"), "inputs[0].datatype: is 'FP32'"),
        (v2(shape=[1, 2]), "inputs[0].shape: is [1, 2]"),
        (v2(shape=[-1]), "inputs[0].shape"),
        (v2(shape="1"), "inputs[0].shape"),
        (v2(shape=[2]), "has 1 values, and its shape says 2"),
        (v2(shape=[2**62]), "inputs[0].shape"),
        (v2(shape=[2000]), "inputs: has 2,000 examples"),
        (v2(shape=[0], data=[]), "inputs: is empty"),
        (v2(data=None), "inputs[0].data: is missing"),
        (v2(data=[1]), "no text"),
        (v2(parameters={"binary_data_size": 10**9}), "inputs[0].parameters.binary_data_size"),
        ({"inputs": v2()["inputs"] * 2}, "text is there twice"),
        ({**v2(), "outputs": [{"name": "logits"}]}, "outputs[0].name: is 'logits'"),
        ({**v2(), "id": ""}, "id:"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_named(service: Service, body: Any, says: str) -> None:
    answer = service.ask("POST", "/v2/models/text/infer", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ([10**9, 0], "inputs: has 1,000,000,000 examples"),
        ([0, 10**9], "inputs: is empty"),
        ([2**32, 2**32], "inputs[0].shape"),
        ([1024, 2**30], "its shape says 1099511627776"),
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_shape_is_only_a_claim(datatype: str, shape: list[int], says: str) -> None:
    """Shapes whose sizes multiply to nothing, or past 64 bits, cost neither memory nor a 500."""
    spec = TensorSpec("audio", datatype, (-1, -1))
    about = Description("m", "1", "t", "p", (), {"audio": "audio"}, ("audio",), (spec,), (), True)
    body = {"inputs": [{"name": "audio", "datatype": datatype, "shape": shape, "data": []}]}
    with pytest.raises(Refused, match=re.escape(says)) as refused:
        protocol.read(json.dumps(body).encode(), None, about)
    assert refused.value.status == 422


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000, "-1", "9"])
def test_a_length_that_is_none_is_told(service: Service, length: str) -> None:
    header = {"Inference-Header-Content-Length": length.encode("latin-1")}
    answer = service.ask("POST", "/v2/models/text/infer", content=b"{}", headers=header)
    assert answer.status_code == 422
    assert "Inference-Header-Content-Length" in answer.json()["error"]


def test_a_text_of_a_hundred_thousand_words_is_cut_as_in_training(service: Service) -> None:
    assert service.ask("POST", "/predict/text", json={"inputs": ["word1 " * 100_000]}).status_code == 200


def test_a_large_body_is_refused_told_or_not(text: Loaded, tmp_path: Path) -> None:
    service = Service(tmp_path, text.engine(), max_body_mb=0.01)
    told = service.ask("POST", "/predict/text", content=b"x" * 50_000)

    async def pieces() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    untold = service.ask("POST", "/predict/text", content=pieces())
    assert (told.status_code, untold.status_code) == (413, 413)
    assert told.json() == untold.json() == {"error": "body: is larger than the 0.01 MiB taken here"}


def bomb(side: int) -> bytes:
    """A PNG of some kilobytes that unpacks to side × side pixels."""
    import struct

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * (side * (side // 8 + 1)), 9)) + chunk(b"IEND", b"")
    )


def postscript() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    return file.getvalue()


def test_images_that_cannot_be_used_are_told_and_named(image: Loaded, tmp_path: Path) -> None:
    service = Service(tmp_path, image.engine())
    good = image.inputs(1)[0]["image"]
    for raw, says in (
        (good[: len(good) // 2], "image is unreadable"),
        (b"no image", "not a known image format"),
        (b"", "image is empty"),
        (postscript(), "image is EPS, a program that is run to draw it"),
        (bomb(20_000), "image has more pixels than the 50,000,000 taken here"),
        (bomb(8_000), "image has 8000×8000 pixels, more than the 50,000,000 taken here"),
    ):
        answer = service.ask(
            "POST", "/predict/vit", json={"inputs": [base64.b64encode(good).decode(), base64.b64encode(raw).decode()]}
        )
        assert answer.status_code == 422
        assert "inputs[1]" in answer.json()["error"]
        assert says in answer.json()["error"]
    for value in ("/etc/passwd", "http://127.0.0.1/x.png", "file:///etc/passwd", "a", "====", 3, {"bytes": "x"}):
        answer = service.ask("POST", "/predict/vit", json={"inputs": [value]})
        assert answer.status_code == 422, value
        assert "root:" not in answer.text


def test_images_come_as_files_and_data_urls_too(image: Loaded, tmp_path: Path) -> None:
    service, files = Service(tmp_path, image.engine()), [one["image"] for one in image.inputs(3)]
    sent = service.ask("POST", "/predict/vit", files=[("inputs", ("a.png", raw, "image/png")) for raw in files])
    urls = ["data:image/png;base64," + base64.b64encode(raw).decode() for raw in files]
    again = service.ask("POST", "/predict/vit", json={"inputs": urls})
    assert sent.status_code == again.status_code == 200
    want = [answer["label"] for answer in image.predictor.predict(files)]
    assert [one["label"] for one in sent.json()["predictions"]] == [one["label"] for one in again.json()["predictions"]] == want


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--'),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="inputs"\r\n\r\nx'),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="inputs"\r\n\r\n\xff\r\n--b--'),
    ],
)
def test_a_broken_form_is_refused(service: Service, kind: str, body: bytes) -> None:
    answer = service.ask("POST", "/predict/text", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422, answer.text


def test_the_parts_of_a_form_are_counted_before_they_are_cut(service: Service) -> None:
    body = b"--b\r\n" * 100_000 + b"--b--"
    answer = service.ask("POST", "/predict/text", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["error"][:28]) == (422, "inputs: has 100,000 examples")


def test_a_defect_is_told_without_its_traceback_and_logged_with_it(text: Loaded, tmp_path: Path) -> None:
    async def broken(examples: list[Any]) -> Answered:
        raise ZeroDivisionError("secret of the house")

    service = Service(tmp_path, scripted(text, broken))
    answer = service.ask("POST", "/predict/text", json={"inputs": ["a"]}, headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "something went wrong here; it is logged under r-1"}
    assert "secret of the house" in service.log.read_text()


def test_not_ready_is_503(text: Loaded, tmp_path: Path) -> None:
    backend = scripted(text, None)
    backend.up = False
    service = Service(tmp_path, backend)
    assert service.ask("GET", "/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/text/ready"):
        assert service.ask("GET", path).status_code == 503


def test_the_log_has_the_request_and_neither_input_nor_key(service: Service) -> None:
    answer = service.ask("POST", "/predict/text", json={"inputs": ["word1 confidential"]}, headers={"X-Request-ID": "r:7"})
    service.ask("POST", "/predict/text", key="tsk_wrong", json={"inputs": ["word1 confidential"]})
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert answer.headers["X-Request-ID"] == answer.json()["id"] == "r:7"
    about = {name: lines[0][name] for name in ("id", "method", "route", "status", "model", "version", "key", "examples")}
    assert about == {
        "id": "r:7",
        "method": "POST",
        "route": "/predict/{name}",
        "status": 200,
        "model": "text",
        "version": "1",
        "key": "tester",
        "examples": 1,
    }
    assert lines[1]["status"] == 401
    text = service.log.read_text()
    assert "confidential" not in text
    assert "tsk_" not in text


def test_an_id_that_is_no_id_is_replaced(service: Service) -> None:
    answer = service.ask("POST", "/predict/text", json={"inputs": ["word1"]}, headers={"X-Request-ID": "a\tb"})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.json()["id"])


def test_prometheus_can_read_what_is_counted(service: Service) -> None:
    for _ in range(3):
        service.ask("POST", "/predict/text", json={"inputs": ["word1", "word2"]})
    service.ask("POST", "/predict/nothing", json={"inputs": ["word1"]})
    service.ask("POST", "/predict/text", json={})
    families = {one.name: one for one in text_string_to_metric_families(service.ask("GET", "/metrics").text)}
    counted = {
        (one.labels["route"], one.labels["status"], one.labels["model"], one.labels["version"]): one.value
        for one in families["tunesmith_requests"].samples
        if one.name.endswith("_total")
    }
    route = "/predict/{name}"
    assert counted == {(route, "200", "text", "1"): 3, (route, "404", "", ""): 1, (route, "422", "text", "1"): 1}
    assert {"tunesmith_request_seconds", "tunesmith_batch_size", "tunesmith_queue", "tunesmith_queue_seconds"} <= set(families)
    sizes = [one.value for one in families["tunesmith_batch_size"].samples if one.name.endswith("_sum")]
    assert sizes == [6]


def test_the_pages_need_nothing_from_outside_and_run_only_their_own_script(service: Service) -> None:
    for path, key in (("/", None), ("/docs", "")):
        page = service.ask("GET", path, key=key)
        assert page.status_code == 200, page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for kind, text in re.findall(r"<(script|style)>(.*?)</\1>", page.text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page.text)
        assert {one for one in loaded if not one.startswith(("/", "data:"))} == set()
        assert "//" not in re.sub(r"data:|http://HOST|// .*", "", policy)


def test_the_documentation_has_every_route(service: Service) -> None:
    page = service.ask("GET", "/docs").text
    for path in service.ask("GET", "/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page


def test_a_binary_request_is_answered_in_binary(service: Service) -> None:
    import struct

    raw = b"".join(struct.pack("<I", len(word)) + word for word in (b"word1", b"word2 word3"))
    head = json.dumps(
        {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    answer = service.ask(
        "POST", "/v2/models/text/infer", content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["Inference-Header-Content-Length"])
    told = json.loads(answer.content[:size])
    lengths = [one["parameters"]["binary_data_size"] for one in told["outputs"]]
    assert len(answer.content) == size + sum(lengths)
    assert lengths[1] == 2 * 2 * 4
    assert io.BytesIO(answer.content[size:]).read(4) in (struct.pack("<I", 3), struct.pack("<I", 4))
