"""What every test gets: no network beyond this machine, one Ray for all that need one, and nothing left running at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tunesmith.cluster.connect import Cluster

ROOT = Path(__file__).parents[1]

# Before anything is imported that reads them. Children inherit them.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
    os.environ.pop(name, None)
os.environ.setdefault("RAY_AUTH_MODE", "token")
if "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


# A property that takes long on a busy machine is no failure: pytest-timeout ends what hangs.
hypothesis.settings.register_profile("tunesmith", deadline=None)
hypothesis.settings.load_profile("tunesmith")


WITH_THE_DEMO = {f"tests/e2e/test_{name}.py" for name in ("browser", "demo", "readme", "release")}
"""Files whose tests go on from the same `make demo`."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where processes share the slow tests: those of a file stay together, and those that share the demo."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "demo" if file in WITH_THE_DEMO else file

    return Together(config, log)


class NetworkBlocked(OSError):
    """A test wanted to reach another machine."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuses connections to other machines, in this process. Datagrams pass: Ray asks the kernel by one which way is out."""
    own = _own_addresses()

    def guarded(real: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            stream = self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM
            if stream and not _is_here(str(address[0]), own):
                raise NetworkBlocked(f"a test wanted to connect to {address[0]}:{address[1]}; tests stay on this machine")
            return real(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        yield


def _own_addresses() -> set[str]:
    own = {"localhost", ""}
    with contextlib.suppress(OSError):
        own |= set(socket.gethostbyname_ex(socket.gethostname())[2])
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; the kernel chooses the address it would send from
        own.add(probe.getsockname()[0])
    return own


def _is_here(host: str, own: set[str]) -> bool:
    if host in own:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running(no_network: None) -> Iterator[None]:
    """After the last test no Ray process that a test started is left."""
    yield
    if "ray" not in sys.modules:
        return
    deadline = time.monotonic() + 15
    while (left := _ray_children()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"tests left processes behind: {left}"


def _ray_children() -> list[str]:
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and (
                "raylet" in command or "gcs_server" in command or "ray::" in command
            ):
                found.append(f"{child.pid} {command[:80]}")
    return found


def load_local() -> ModuleType:
    """``cluster/local.py``, which is a script and no package."""
    name = "cluster_local"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "cluster" / "local.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def load_cluster() -> Any:
    """The class ``LocalCluster`` of ``cluster/local.py``, a context manager."""
    return load_local().LocalCluster


@pytest.fixture(scope="session")
def ray_head(load_cluster: Any) -> Iterator[Any]:
    """A Ray of one node with two CPUs that lasts for the session. It outlives connections to it, which take a second."""
    with load_cluster(nodes=1, cpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ray_local(ray_head: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """This process is connected to a Ray with two CPUs, and so are the commands it starts (``RAY_ADDRESS``)."""
    from tunesmith.cluster.connect import connect

    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with pytest.MonkeyPatch.context() as patch, connect(ray_head.address, log_file=str(log)) as cluster:
        for name, value in ray_head.environment.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="session")
def local_cluster(load_cluster: Any) -> Iterator[Any]:
    """A Ray cluster of two nodes with one CPU each that takes jobs; nothing is connected to it."""
    with load_cluster(nodes=2, cpus=1, dashboard=True) as cluster:
        yield cluster
