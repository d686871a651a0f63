"""The door to Flower: what of it this wing uses, under the names of Flower 1.41.

Its API moves fast (gRPC became HTTP, federations came and went within a year), so nothing else here imports it but the three
adapters to SuperLink: ``wire``, ``fleet`` and ``patient`` in :mod:`tunesmith_federated.deployment`. In this process and its
children it reports nothing to anybody and installs nothing.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping

LOST = 1
"""Flower's code of an unknown error."""
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""For every process that Flower runs in; it reads the first of them when it is imported."""

os.environ.update(QUIET)

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.supercore.error import FlowerError  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

__all__ = [
    "LOST",
    "QUIET",
    "Array",
    "ArrayRecord",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Error",
    "FlowerError",
    "Grid",
    "Message",
    "RecordDict",
    "ServerApp",
    "copied",
    "environment",
    "stand_alone",
    "without_content",
]


def environment(home: str, extra: Mapping[str, str]) -> dict[str, str]:
    """For a child process of Flower: ``home`` is where it may keep files."""
    return {**os.environ, **QUIET, "FLWR_HOME": home, **extra}


def without_content(message: Message) -> Message:
    """The message as it is announced; what it carries follows in pieces."""
    from flwr.app.message import remove_content_from_message

    return remove_content_from_message(message)


def stand_alone() -> None:
    """Let this process make messages though no SuperLink has given it a task: it is server and line in one."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0


def copied(message: Message, content: RecordDict) -> Message:
    """The message with other content, the same in everything else."""
    other = copy.copy(message)
    other.__dict__["_content"] = content
    return other
