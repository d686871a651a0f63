"""The server's half of the adapter to Flower (1.41): its control routes, protobuf over HTTPS.

:mod:`tunesmith_federated.flower`, this, :mod:`~tunesmith_federated.deployment.fleet` and
:mod:`~tunesmith_federated.deployment.patient` are the only places where Flower is imported.
"""

from __future__ import annotations

import hashlib
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunesmith_federated import flower  # noqa: F401  # first, for what it sets before Flower is imported
from tunesmith_federated.deployment import certificates

# isort: split
import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor


@dataclass(frozen=True)
class NodeState:
    """A node as SuperLink lists it."""

    id: int
    name: str
    status: str
    """``registered``, ``online`` or ``offline``."""
    public_key: bytes
    last_activated: str


@dataclass(frozen=True)
class RunState:
    """A run as SuperLink lists it."""

    id: int
    status: str
    """``pending``, ``starting``, ``running`` or ``finished``."""
    outcome: str
    """``completed``, ``failed`` or ``stopped``; empty until it is finished."""
    details: str
    started: str
    finished: str
    sent_bytes: int
    """From SuperLink to the sites."""
    received_bytes: int


class Control:
    """SuperLink's control routes, which ask for nothing and are therefore on loopback alone."""

    def __init__(self, address: str, ca: Path) -> None:
        interceptors = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        self._client = ControlHttpClient.from_server_address(address, False, ca.read_bytes(), interceptors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def nodes(self) -> list[NodeState]:
        """All that are registered."""
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            NodeState(one.node_id, one.name, one.status, one.public_key, one.last_activated_at)
            for one in found
            if one.status != "unregistered"
        ]

    def register(self, public_key: str, name: str) -> int:
        """Let a node key (in OpenSSH's form) in; its node's id."""
        return int(
            self._client.RegisterNode(RegisterNodeRequest(public_key=certificates.public_pem(public_key), name=name)).node_id
        )

    def unregister(self, node_id: int) -> None:
        """Let a node in no more."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start(self, app: bytes, config: dict[str, Any]) -> int:
        """Start a run of an app (:func:`build_app`); its id."""
        fab = Fab(hashlib.sha256(app).hexdigest(), app, {})
        return int(
            self._client.StartRun(StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(config))).run_id
        )

    def runs(self, run_id: int | None = None, limit: int | None = None) -> list[RunState]:
        """The newest first."""
        found = self._client.ListRuns(ListRunsRequest(run_id=run_id, limit=limit)).run_dict.values()
        states = [
            RunState(
                one.run_id,
                one.status.status,
                one.status.sub_status,
                one.status.details,
                one.running_at or one.starting_at or one.pending_at,
                one.finished_at,
                one.bytes_sent,
                one.bytes_recv,
            )
            for one in found
        ]
        return sorted(states, key=lambda one: one.started, reverse=True)

    def stop(self, run_id: int) -> bool:
        """Whether a run was stopped."""
        return bool(self._client.StopRun(StopRunRequest(run_id=run_id)).success)


def app_file(server_app: str, client_app: str) -> str:
    """``pyproject.toml`` of a Flower app that holds nothing but the names of installed ones, each ``module:attribute``."""
    return f"""\
[project]
name = "tunesmith-federated"
version = "1.0.0"

[tool.flwr.app]
publisher = "tunesmith"

[tool.flwr.app.components]
serverapp = "{server_app}"
clientapp = "{client_app}"

[tool.flwr.app.config]
job = ""
"""


def build_app(server_app: str, client_app: str) -> bytes:
    """Such an app as it is sent: no code travels."""
    from flwr.cli.build import build_fab_from_files

    text = app_file(server_app, client_app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower asks pathspec for a pattern by its old name
        return build_fab_from_files({"pyproject.toml": text.encode()})[0]


def ready(address: str, ca: Path, timeout: float = 2.0) -> bool:
    """Whether a SuperLink answers there."""
    context = ssl.create_default_context(cafile=str(ca))
    try:
        return httpx.get(f"https://{address}/health", verify=context, timeout=timeout).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
