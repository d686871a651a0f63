"""Joins a Ray cluster, or starts one on this machine, without a word on the screen: Ray's chatter goes to a log file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith.cluster.nodes import Node, alive_nodes
from tunesmith.cluster.quiet import quiet_ray
from tunesmith.errors import ClusterError

REACH_TIMEOUT = 5.0
"""Seconds in which a cluster's port must answer."""

START_ATTEMPTS = 2
"""Ray gives its own processes 30 s to answer, which a loaded machine or a first start after installing may not keep."""

PASSED_ON = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_TELEMETRY",
    "TOKENIZERS_PARALLELISM",
    "MLFLOW_TRACKING_URI",
    "WANDB_MODE",
    "WANDB_BASE_URL",
)
"""Variables of this process that workers on a joined cluster get too. Secrets are not among them: a runtime environment is
shown on Ray's dashboard."""

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own switch (``ray._private.ray_constants``): at 0 a Ray started here listens on 127.0.0.1 only, on Linux too. Without
it the raylet, the GCS and every worker listen on all interfaces."""

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the driver of a submitted job, whose runtime environment is already made."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster this process is connected to."""

    address: str
    """``HOST:PORT`` of its control service (GCS)."""
    started_here: bool
    """Whether it was started by :func:`connect` and ends with it."""

    def nodes(self) -> list[Node]:
        """The living nodes, the head first."""
        return alive_nodes()

    @property
    def gpus(self) -> int:
        """GPUs of all living nodes."""
        return int(sum(node.total.get("GPU", 0) for node in self.nodes()))


@dataclass(frozen=True)
class Share:
    """What a Ray that is started here has of this machine; None leaves it to Ray: everything, and its usual folder."""

    cpus: int | None = None
    gpus: int | None = None
    folder: str | None = None
    """Where its sessions lie, at most some 40 characters: sockets, whose paths are short, lie below it."""


@contextlib.contextmanager
def connect(on: str | None = None, *, log_file: str | None = None, share: Share | None = None) -> Iterator[Cluster]:
    """Joins the Ray cluster at ``on`` (or ``RAY_ADDRESS``), or starts one on this machine where there is neither.

    A process that is connected already keeps its connection. Output of Ray and of its workers is appended to ``log_file``;
    without one it is dropped (Ray's session folder still has it). A Ray started here ends with the context, and has ``share``.

    Raises:
        ClusterError: nothing answers there within 30 s, the token is refused, or Ray's or Python's version differs.
    """
    import ray

    with quiet_ray(log_file) as captured:
        if ray.is_initialized():
            _check_same(on, _gcs_address())
            yield Cluster(_gcs_address(), started_here=False)
            return
        address = _address(on or os.environ.get("RAY_ADDRESS") or None)
        if address not in (None, "auto"):
            _check_reachable(address)
        with (
            _loopback() if address is None or _on_loopback_only(address) else contextlib.nullcontext(),
            _own_sigterm() as take_back,
        ):
            try:
                _start(captured, share or Share()) if address is None else _join(address, captured)
                captured.take_logger()
                take_back()
                yield Cluster(_gcs_address(), started_here=address is None)
            finally:
                ray.shutdown()


def _address(on: str | None) -> str | None:
    """The ``HOST:PORT`` to join, ``auto``, or None to start a Ray here."""
    if on is None or on == "local":
        return None
    if on.startswith(("http://", "https://")):
        raise ClusterError(
            f"{on} is the address of Ray's dashboard: it takes whole commands, not connections\n"
            f"    → run the same command with --on {on} (or RAY_ADDRESS={on}), which submits it as a job"
        )
    if on.startswith("ray://"):
        raise ClusterError(
            f"{on} is a Ray Client address, over which training cannot be followed or resumed\n"
            f"    → submit the command as a job: --on http://{on.removeprefix('ray://').split(':')[0]}:8265"
        )
    if on == "auto":
        return on
    host, _, port = on.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(
            f"--on {on}: not an address of a Ray cluster\n"
            f"    → HOST:PORT to join one from one of its nodes (--on {on.split(':')[0] or 'HEAD'}:6379), "
            f"or http://HEAD:8265 to submit a job from anywhere"
        )
    return on


def _check_same(on: str | None, present: str) -> None:
    """A process has one connection: asking for another cluster while it lasts is a mistake."""
    address = _address(on)
    if address not in (None, "auto", present) and address.replace("localhost", "127.0.0.1") != present:
        raise ClusterError(
            f"this process is connected to {present}, not to {on}\n    → call ray.shutdown() first, or leave --on away"
        )


def _start(captured: Any, share: Share) -> None:
    """Starts a Ray of this machine's CPUs and GPUs that ends with this process."""
    import ray

    for attempt in range(START_ATTEMPTS):
        try:
            # The dashboard's processes would double the start (5 s → 11 s on 2 cores) and nothing here asks it.
            with captured():
                ray.init(
                    address="local",
                    num_cpus=share.cpus,
                    num_gpus=share.gpus,
                    include_dashboard=False,
                    _temp_dir=share.folder,
                    **_common(captured),
                )
            return
        except Exception as error:  # Ray raises a bare Exception where its parts do not answer in time
            ray.shutdown()
            late = "timed out" in str(error)
            if attempt + 1 < START_ATTEMPTS and late:
                continue
            raise ClusterError(
                f"Ray could not start on this machine: {_first_line(error)}\n"
                f"    → {'Try again when this machine is less busy: Ray waits for its parts for 30 s; ' * late}"
                f"`tunesmith doctor` tells what is missing (memory, shared memory, a full or foreign "
                f"{share.folder or _temp_folder()}; "
                f"RAY_TMPDIR moves that folder)"
            ) from error


def _join(address: str, captured: Any) -> None:
    """Connects to the cluster at ``address``; Tunesmith travels along where its nodes lack this very code."""
    import ray

    _init(address, None, captured)
    runtime_env = _runtime_env()
    if runtime_env:
        ray.shutdown()
        _init(address, runtime_env, captured)


def _init(address: str, runtime_env: dict[str, Any] | None, captured: Any) -> None:
    import ray

    use_token()
    try:
        with captured() as said:
            ray.init(address=address, runtime_env=runtime_env, **_common(captured))
    except (OSError, RuntimeError, ConnectionError, ValueError, ray.exceptions.RayError) as error:
        raise _why_not(address, error, said.text()) from error


def _common(captured: Any) -> dict[str, Any]:
    return {"configure_logging": False, "log_to_driver": captured.follows_workers, "namespace": "tunesmith"}


def use_token() -> None:
    """Presents this user's token where there is one. Ray does so by itself only for a cluster that it found by itself."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _runtime_env() -> dict[str, Any] | None:
    """What this cluster's workers must be given: our wheel where a node has other code, and the variables passed on."""
    from tunesmith.cluster.wheel import build_wheel, nodes_without_this_code

    if JOB_CONFIG in os.environ:
        return None
    environment: dict[str, Any] = {}
    variables = passed_on_variables()
    if variables:
        environment["env_vars"] = variables
    if nodes_without_this_code(alive_nodes()):
        environment["py_modules"] = [str(build_wheel())]
    return environment or None


def passed_on_variables() -> dict[str, str]:
    """The variables of this process that workers elsewhere get too."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def _check_reachable(address: str) -> None:
    """Raises :class:`ClusterError` unless a gRPC server answers at ``address`` within a few seconds.

    Asked before Ray is, because ``ray.init`` takes over two minutes to give up on a closed port (measured on 2.60).
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_TIMEOUT) as connection:
            connection.settimeout(REACH_TIMEOUT)
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            # The HTTP/2 preface and an empty SETTINGS frame (RFC 9113, 3.4); a gRPC server answers with its SETTINGS.
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            answer = connection.recv(9)
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {_first_line(error)}\n"
            f"    → start one there with `ray start --head --port={port}`, or leave --on (and RAY_ADDRESS) away to run on this "
            f"machine; from outside the cluster use --on http://{host}:8265"
        ) from error
    if answer[3:4] != b"\x04":
        hint = f"use --on http://{address}" if answer.startswith(b"HTTP/") else "see `ray start`'s output for the right port"
        raise ClusterError(f"{address} answers, but is not the control service of a Ray cluster\n    → {hint}")


def _on_loopback_only(address: str) -> bool:
    """Whether ``address`` is of a cluster that nothing but this machine reaches (``cluster/local.py`` makes such).

    Ray replaces 127.0.0.1 by this machine's outer address before it connects, and so waits for minutes on such a cluster.
    """
    from ray._private.services import get_node_ip_address

    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return False
    try:
        address_outside = get_node_ip_address()  # type: ignore[no-untyped-call]
        socket.create_connection((address_outside, int(port)), timeout=REACH_TIMEOUT).close()
    except OSError:
        return True
    return False


def _why_not(address: str, error: Exception, said: str) -> ClusterError:
    """What to tell of a failed ``ray.init``; ``said`` is what Ray's C++ part wrote meanwhile."""
    text = f"{error}\n{said}"
    if "Version mismatch" in text:
        return ClusterError(
            f"the cluster at {address} runs other versions than this process:\n"
            + "\n".join(f"    {line.strip()}" for line in str(error).splitlines()[1:] if line.strip())
            + "\n    → install the cluster's versions of ray and Python here, or ours on every node"
        )
    if "AuthToken" in text or "Unauthenticated" in text or isinstance(error, _authentication_error()):
        return ClusterError(
            f"the cluster at {address} refused this user's token\n"
            f"    → set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the cluster's token "
            f"(on its head: `ray get-auth-token`, or ~/.ray/auth_token)"
        )
    return ClusterError(
        f"the Ray cluster at {address} could not be joined: {_first_line(error)}\n"
        f"    → join from one of its nodes (`ray start --address={address}` makes this machine one), "
        f"or submit a job: --on http://{address.rpartition(':')[0] or 'HEAD'}:8265"
    )


def _authentication_error() -> type[Exception]:
    from ray.exceptions import AuthenticationError

    return AuthenticationError


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Keeps a Ray that starts meanwhile on 127.0.0.1, its children included."""
    from ray._private import ray_constants

    before = os.environ.get(LOOPBACK_ONLY), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[LOOPBACK_ONLY] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    gloo = "GLOO_SOCKET_IFNAME"
    own_gloo = sys.platform == "linux" and gloo not in os.environ
    if own_gloo:
        os.environ[gloo] = "lo"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[1]
        _restore(LOOPBACK_ONLY, before[0])
        if own_gloo:
            os.environ.pop(gloo, None)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[Callable[[], None]]:
    """Yields what gives SIGTERM back to this process's handler after Ray has put its own there.

    Ray's in Python ends the process on the spot; the one in C++ before it writes its stack on the screen.
    """
    before = signal.getsignal(signal.SIGTERM)
    here = threading.current_thread() is threading.main_thread()

    def take_back() -> None:
        if here:
            signal.signal(signal.SIGTERM, before if callable(before) else signal.getsignal(signal.SIGTERM))

    try:
        yield take_back
    finally:
        if here and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # set while it is obeyed
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _gcs_address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _temp_folder() -> str:
    return os.path.join(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
