"""A Ray on this machine: started quietly, on loopback only, and never asked for more than it has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.cluster.connect import Cluster, connect
from tunesmith.cluster.preflight import check_resources, preflight
from tunesmith.errors import ClusterError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

START = """
import sys
import time
import psutil
from tunesmith.cluster.connect import connect

def open_to_all():
    children = psutil.Process().children(recursive=True)
    found = [(child.name(), at.laddr) for child in children for at in child.net_connections() if at.status == "LISTEN"]
    assert len(found) > 5
    return [(name, at) for name, at in found if at.ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")]

with connect(log_file=sys.argv[1]) as cluster:
    import ray

    @ray.remote
    def task():
        print("a worker speaks")
        return 1

    assert cluster.started_here
    assert ray.get(task.remote(), timeout=60) == 1
    assert not open_to_all(), open_to_all()
    time.sleep(1)
"""


def test_ray_starts_without_a_word_and_for_this_machine_only(tmp_path: Path) -> None:
    log = tmp_path / "ray.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-c", START, log], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "a worker speaks" in log.read_text()


def test_a_connected_process_keeps_its_connection(ray_local: Cluster) -> None:
    with connect() as again:
        assert again.address == ray_local.address
        assert not again.started_here
    assert ray_local.nodes()


def test_another_cluster_than_the_connected_one_is_refused(ray_local: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"is connected to .*, not to 127\.0\.0\.1:1"), connect("127.0.0.1:1"):
        pass


def test_more_workers_than_there_is_room_for_are_refused_at_once(ray_local: Cluster) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"asked: 3 workers × \{CPU: 1\}") as refused:
        preflight(3, {"CPU": 1})
    assert "→ training.num_workers=2" in str(refused.value)
    with pytest.raises(ClusterError, match=r"no node has a GPU\n.*training\.use_gpu=false"):
        preflight(1, {"CPU": 1, "GPU": 1})
    assert time.monotonic() - began < 5


def test_resources_that_others_hold_are_waited_for(ray_local: Cluster) -> None:
    import ray

    @ray.remote(num_cpus=2)
    class Holder:
        def ready(self) -> None:
            pass

    holder = Holder.remote()
    ray.get(holder.ready.remote(), timeout=60)
    with pytest.raises(ClusterError, match=r"busy: after 1 s"):
        check_resources(1, {"CPU": 1}, timeout=1)
    ray.kill(holder)
    check_resources(2, {"CPU": 1}, timeout=20)


def test_platform_stays_the_standard_librarys_on_workers(ray_local: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    @ray.remote
    def where() -> str:
        import platform

        return f"{platform.__file__} {platform.python_version()}"

    monkeypatch.chdir(Path(__file__).parents[2])
    assert "lib/python" in ray.get(where.remote(), timeout=60)
