"""Serving on a cluster that runs already: what is not ours is left as it is, and ours goes when it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from support.runs import finished_run
from tunesmith.cluster.connect import connect
from tunesmith.errors import ClusterError
from tunesmith_serving import record as written
from tunesmith_serving import service
from tunesmith_serving.keys import KeyFile
from tunesmith_serving.plan import planned

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


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
        answer = httpx.post(f"{record.url}/predict/made", json={"inputs": ["word1"]}, headers={"X-API-Key": key}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert written.records() == [record]
    finally:
        service.stop(record)
    assert written.records() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(record.url, timeout=5)
