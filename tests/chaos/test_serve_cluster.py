"""Serving on a cluster that runs already: what is not ours is left as it is, and ours goes when it is told to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from support.runs import finished_run
from tunesmith.cli import main
from tunesmith.cluster.connect import connect
from tunesmith.errors import ClusterError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith_serving import record as written
from tunesmith_serving import service
from tunesmith_serving.keys import KeyFile
from tunesmith_serving.plan import planned, serve_yaml
from tunesmith_serving.rollout import Rollout

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


def test_a_serve_that_runs_something_else_is_left_untouched(
    ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_head.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("tester")
    models = planned([f"made={finished_run(tmp_path, 'text-classification', steps=1).path}"])
    port = service.choose_port(None)

    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Theirs:
        def __call__(self, request: Any) -> str:
            return "theirs"

    with connect(ray_head.address):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(Theirs.bind(), name="theirs", route_prefix="/theirs")
    with pytest.raises(ClusterError, match="runs theirs already; it is left as it is"):
        service.deploy(models, keys=str(keys.path), port=port, on=ray_head.address)
    assert httpx.get(f"http://127.0.0.1:{port}/theirs", timeout=30).text == "theirs"

    with connect(ray_head.address):
        serve.delete("theirs")
    record = service.deploy(models, keys=str(keys.path), port=port, on=ray_head.address)
    try:
        answer = httpx.post(f"{record.url}/predict/made", json={"inputs": ["word1"]}, headers={"X-API-Key": key}, timeout=120)
        assert answer.status_code == 200, answer.text
        assert written.records() == [record]
    finally:
        service.stop(record)
    assert written.records() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(record.url, timeout=5)


def test_a_gate_decides_what_comes_to_a_cluster(ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ray_head.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    run = finished_run(tmp_path, "text-classification", steps=1, evaluation={"bootstrap_samples": 100})
    evaluate_run(run)
    gate = tmp_path / "gate.yaml"

    def serve(least: float) -> Result:
        gate.write_text(f"rules: [{{measure: n, min: {least}}}]")
        asked = [f"made={run.path}", "--gate", str(gate), "--on", ray_head.address]
        return CliRunner().invoke(main, ["serve", *asked])

    refused = serve(1e6)
    assert refused.exit_code == 3, refused.output
    assert written.records() == []
    let_in = serve(1)
    try:
        assert let_in.exit_code == 0, let_in.output
        (record,) = written.records()
        assert record.gates["made@1"].endswith("The gate passed: 1 of 1 rules hold")
    finally:
        for one in written.records():
            service.stop(one)


def test_what_is_written_for_serve_deploy_comes_up_and_is_changed_in_place(
    ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declarative path: the same applications, and a changed ``user_config`` reaches the door that runs."""
    for name, value in ray_head.environment.items():
        monkeypatch.setenv(name, value)
    keys = KeyFile(tmp_path / "keys.json")
    headers = {"X-API-Key": keys.add("tester")}
    run = finished_run(tmp_path, "text-classification", steps=1).path
    port = service.choose_port(None)
    config = yaml.safe_load(serve_yaml(planned([f"made={run}", f"made@2={run}", "serving.num_cpus=0.5"]), str(keys.path), port))

    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    def version() -> str | None:
        answer = httpx.post(f"http://127.0.0.1:{port}/predict/made", json={"inputs": ["word1"]}, headers=headers, timeout=120)
        return str(answer.json()["version"]) if answer.status_code == 200 else None

    def deployed() -> int:
        """The door's process, once all is up and as the file says."""
        client: Any = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(config))
        deadline = time.monotonic() + 150
        while True:
            found = serve.status().applications
            if len(found) == 3 and all(one.status == "RUNNING" for one in found.values()):
                break
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        (door,) = client.get_serve_details()["applications"]["tunesmith"]["deployments"]["door"]["replicas"]
        return int(door["pid"])

    with connect(ray_head.address):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        try:
            before = deployed()
            assert version() == "1"
            plan = config["applications"][-1]["deployments"][0]["user_config"]
            plan["rollouts"] = {"made": Rollout("2", "all").plain()}
            assert deployed() == before
            deadline = time.monotonic() + 60
            while version() != "2":
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            serve.shutdown()
