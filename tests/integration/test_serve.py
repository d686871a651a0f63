"""A real service: `tunesmith serve` on a Ray of its own, asked over HTTP, on loopback only, and gone when it is told to go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.data import texts
from support.runs import finished_run
from tunesmith.runs import Run
from tunesmith_serving.client import Client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMMAND = [sys.executable, "-m", "tunesmith.cli", "serve"]


@dataclass
class Running:
    """A service that a test module shares."""

    url: str
    key: str
    process: subprocess.Popen[str]
    runs: dict[str, Run]
    environment: dict[str, str]
    said: Path

    def client(self, key: str | None = "", **options: Any) -> httpx.Client:
        headers = {} if key is None else {"X-API-Key": key or self.key}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A text and an image classifier."""
    tasks = {"reviews": "text-classification", "corners": "image-classification"}
    return {name: finished_run(tmp_path_factory.mktemp(name), task) for name, task in tasks.items()}


@pytest.fixture(scope="module")
def running(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`tunesmith serve` of both, sharing two CPUs, in a process of its own."""
    folder = tmp_path_factory.mktemp("service")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
    said = folder / "said"
    arguments = [f"{name}={run.path}" for name, run in runs.items()]
    with said.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "serving.num_cpus=0.5", "serving.drain_s=5"],
            env=environment, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while " at http" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        text = said.read_text()
        url = text.partition(" at ")[2].split()[0]
        key = text.partition("shown this once: ")[2].split()[0]
        yield Running(url, key, process, runs, environment, said)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def test_what_is_served_is_what_the_run_predicts(running: Running) -> None:
    inputs = [row["text"] for row in texts(20, seed=5)]
    with running.client() as client:
        answer = client.post("/predict/reviews", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    want = running.runs["reviews"].predict(inputs)
    for got, one in zip(answer.json()["predictions"], want, strict=True):
        assert got["label"] == one["label"]
        assert list(got["scores"].values()) == pytest.approx(one["probabilities"], abs=1e-5)


def test_the_client_and_the_playground_reach_it(running: Running) -> None:
    inputs = [row["text"] for row in texts(200, seed=6)]
    with Client(f"{running.url}/predict/reviews", running.key, batch_size=8) as client:
        answers = client.predict(inputs)
    assert [one["label"] for one in answers] == [one["label"] for one in running.runs["reviews"].predict(inputs)]
    with running.client(key=None) as nobody:
        page = nobody.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'sha256-" in page.headers["content-security-policy"]


def test_it_is_judged_and_loaded_as_any_v2_server(running: Running, tmp_path: Path) -> None:
    environment = {**running.environment, "TUNESMITH_API_KEY": running.key}
    run, url = running.runs["corners"], f"{running.url}/v2/models/corners"
    command = [*COMMAND[:-1], "evaluate", url, "--like", run.path, "--out", str(tmp_path / "judged"), "--load-seconds", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    suites = json.loads((tmp_path / "judged" / "metrics.json").read_text())["test"]["suites"]
    assert suites["parity"]["measures"]["in_process/agreement"]["value"] == 1
    assert suites["latency"]["measures"]["error_rate"]["value"] == 0


def test_an_image_goes_as_a_file(running: Running) -> None:
    run = running.runs["corners"]
    pictures = sorted(Path(run.path).parents[1].glob("images/*.png"))[:3]
    with running.client() as client:
        answer = client.post("/predict/corners", files=[("inputs", (one.name, one.read_bytes())) for one in pictures])
    assert [one["label"] for one in answer.json()["predictions"]] == [
        one["label"] for one in run.predict([str(one) for one in pictures])
    ]


def test_the_standard_client_of_the_protocol_speaks_to_it(running: Running) -> None:
    """tritonclient over HTTP: health, metadata, and inference in its default, binary, form and in JSON."""
    import numpy as np
    from tritonclient import http as triton

    headers = {"Authorization": f"Bearer {running.key}"}
    client = triton.InferenceServerClient(running.url.removeprefix("http://"))
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("reviews", headers=headers)
    assert client.is_model_ready("reviews", "1", headers=headers)
    assert client.get_server_metadata(headers=headers)["name"] == "tunesmith"
    about = client.get_model_metadata("reviews", headers=headers)
    assert [one["name"] for one in about["inputs"]] == ["text"]

    inputs = [row["text"] for row in texts(7, seed=6)]
    want = running.runs["reviews"].predict(inputs)
    for binary in (True, False):
        tensor = triton.InferInput("text", [len(inputs)], "BYTES")
        tensor.set_data_from_numpy(np.array(inputs, dtype=object), binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
        # The client writes the length of its header into the dictionary that it is given.
        answer = client.infer("reviews", [tensor], request_id="t-1", outputs=outputs, headers=dict(headers))
        labels = [one.decode() if isinstance(one, bytes) else one for one in answer.as_numpy("label")]
        assert labels == [one["label"] for one in want]
        assert np.allclose(answer.as_numpy("probabilities"), [one["probabilities"] for one in want], atol=1e-5)
        assert answer.get_response()["id"] == "t-1"
    client.close()


def test_everything_it_opens_is_on_loopback_and_wants_a_key(running: Running) -> None:
    """Serving's own listeners and Ray's: over HTTP none answers without a key, but for the metrics of Ray's own agents."""
    import psutil

    listeners, foreign = set(), []
    for process in [psutil.Process(running.process.pid), *psutil.Process(running.process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    listeners.add((one.laddr.port, process.name()))
                    if one.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1"):
                        foreign.append((one.laddr, process.name()))
    assert foreign == []
    assert int(running.url.rsplit(":", 1)[1]) in {port for port, _ in listeners}
    answering = []
    for port, _name in sorted(listeners):
        for path in ("/models", "/stats", "/v2/models/reviews"):
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5, trust_env=False)
                if answer.status_code == 200 and not answer.text.startswith("# HELP "):
                    answering.append((port, path, answer.text[:80]))
    assert answering == []


def test_many_at_once_are_all_answered_in_shared_batches(running: Running) -> None:
    from concurrent.futures import ThreadPoolExecutor

    inputs = [row["text"] for row in texts(64, seed=8)]
    want = [one["label"] for one in running.runs["reviews"].predict(inputs)]
    with running.client() as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: client.post("/predict/reviews", json={"inputs": [text]}), inputs))
        metrics = client.get("/metrics").text
    assert [one.status_code for one in answers] == [200] * len(inputs)
    assert [one.json()["predictions"][0]["label"] for one in answers] == want
    line = next(text for text in metrics.splitlines() if text.startswith("tunesmith_batch_size_count{") and "reviews" in text)
    assert float(line.rsplit(" ", 1)[1]) > 0


def test_a_body_of_50_mb_is_refused_in_words(running: Running) -> None:
    with running.client() as client:
        for _ in range(3):
            answer = client.post("/predict/reviews", content=b"x" * (50 << 20))
            assert answer.status_code == 413
            assert "32 MiB" in answer.json()["error"]
        assert client.get("/v2/health/ready").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(running: Running) -> None:
    head = f"POST /predict/reviews HTTP/1.1\r\nHost: here\r\nX-API-Key: {running.key}\r\nX-Deadline-Seconds: 1\r\n"
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=30) as client:
        client.sendall(f"{head}Content-Length: 99\r\n\r\nhalf".encode())
        answer = b""
        while b"}" not in answer and (piece := client.recv(4096)):  # head and body may come apart
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body: was not here within 1 s" in answer


def test_a_client_that_goes_away_leaves_no_request_open(running: Running) -> None:
    with running.client() as client:
        for _ in range(5):
            with contextlib.suppress(httpx.TimeoutException):
                client.post("/predict/reviews", json={"inputs": ["word1 word2"] * 1000}, timeout=0.02)
        deadline = time.monotonic() + 20
        while True:
            lines = client.get("/metrics").text.splitlines()
            depth = next(line for line in lines if line.startswith("tunesmith_queue{") and "reviews" in line)
            if float(depth.rsplit(" ", 1)[1]) == 0:
                break
            assert time.monotonic() < deadline, depth
            time.sleep(0.2)


def test_keys_are_made_and_revoked_while_it_runs(running: Running) -> None:
    made = running.command("keys", "add", "narrow", "--models", "corners")
    assert made.returncode == 0, made.stderr
    with running.client(made.stdout.strip()) as client:
        deadline = time.monotonic() + 5
        while (answer := client.get("/v2/models/corners")).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answer.status_code == 200
        assert client.get("/v2/models/reviews").status_code == 403
        assert running.command("keys", "revoke", "narrow").returncode == 0
        deadline = time.monotonic() + 5
        while client.get("/v2/models/corners").status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert client.get("/v2/models/corners").status_code == 401
    listed = running.command("keys", "list")
    assert "narrow" not in listed.stdout
    assert "tsk_" not in listed.stdout


def test_status_and_the_port_that_is_taken(running: Running) -> None:
    status = running.command("status")
    assert running.url in status.stdout
    assert " ready " in status.stdout
    port = running.url.rsplit(":", 1)[1]
    taken = running.command(running.runs["reviews"].path, "--port", port)
    assert taken.returncode == 2
    assert f"port {port} is in use by reviews@1" in taken.stderr


def test_the_log_has_lines_of_json_with_the_requests_ids(running: Running) -> None:
    with running.client() as client:
        client.post("/predict/reviews", json={"inputs": ["word1 confidential"]}, headers={"X-Request-ID": "find-me"})
    log = Path(running.environment["XDG_STATE_HOME"], "tunesmith", "serve", running.url.rsplit(":", 1)[1] + ".jsonl")
    deadline = time.monotonic() + 10
    while '"find-me"' not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)  # it is written when the answer is on its way
    text = log.read_text()
    assert any(json.loads(line).get("id") == "find-me" for line in text.splitlines())
    assert "confidential" not in text
    assert running.key not in text


def test_told_to_stop_it_answers_what_it_has_and_leaves_nothing(running: Running) -> None:
    import psutil

    family = psutil.Process(running.process.pid).children(recursive=True)
    stopped = running.command("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert running.process.wait(30) == 0, running.said.read_text()
    _, left = psutil.wait_procs(family, timeout=15)
    assert left == []
    assert running.command("status").stdout == ""
