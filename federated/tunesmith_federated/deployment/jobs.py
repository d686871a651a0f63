"""A job on a federation that is up: submitted, waited for, cancelled. No code travels with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ServiceError, UserError
from tunesmith_federated.deployment import up
from tunesmith_federated.deployment.folder import Federation

if TYPE_CHECKING:
    from tunesmith_federated.deployment.wire import Control, RunState

SERVER_APP = "tunesmith_federated.server_app:app"
CLIENT_APP = "tunesmith_federated.client_app:app"
POLL_SECONDS = 1.0
UNREACHABLE_SECONDS = 120.0
"""How long :func:`wait` bears a SuperLink that does not answer: it may be on its way up again."""


def submit(job: str | os.PathLike[str], federation: str | os.PathLike[str], server_app: str = SERVER_APP) -> int:
    """Start the server app on the federation; it reads the job's folder. Gives the run's id.

    Raises :class:`ServiceError` where the federation is not up, :class:`UserError` where the job's folder is not there.
    """
    from tunesmith_federated.deployment import wire

    folder = Path(job).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"the job's folder {job} is not there")
    with _control(federation) as control:
        return control.start(wire.build_app(server_app, CLIENT_APP), {"job": str(folder)})


def state(run_id: int, federation: str | os.PathLike[str]) -> RunState:
    """How a run stands. Raises :class:`ServiceError` where there is no such run, or no federation that is up."""
    with _control(federation) as control:
        found = control.runs(run_id)
    if not found:
        raise ServiceError(f"the federation {federation} knows no run {run_id}")
    return found[0]


def wait(
    run_id: int,
    federation: str | os.PathLike[str],
    timeout: float | None = None,
    look: Callable[[RunState], None] = lambda found: None,
) -> RunState:
    """Until a run is finished; ``look`` gets each state on the way. Raises :class:`ServiceError` after ``timeout`` seconds."""
    started = answered = time.monotonic()
    while True:
        try:
            found = state(run_id, federation)
            answered = time.monotonic()
            look(found)
            if found.status == "finished":
                return found
        except ServiceError:
            if time.monotonic() - answered > UNREACHABLE_SECONDS:
                raise
        if timeout is not None and time.monotonic() - started > timeout:
            raise ServiceError(f"run {run_id} was not finished within {timeout:.0f} s")
        time.sleep(POLL_SECONDS)


def cancel(run_id: int, federation: str | os.PathLike[str]) -> bool:
    """Stop a run; False where it could not be."""
    with _control(federation) as control:
        return control.stop(run_id)


class _Explained:
    """A line to SuperLink whose errors say what is amiss."""

    def __init__(self, control: Control, folder: Path) -> None:
        self._control, self._folder = control, folder

    def __enter__(self) -> Control:
        return self._control.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import httpx

        self._control.__exit__(None, None, None)
        if isinstance(error, httpx.HTTPError):
            raise ServiceError(f"the SuperLink of {self._folder} does not answer: {error}") from error


def _control(folder: str | os.PathLike[str]) -> _Explained:
    from tunesmith_federated.deployment import wire

    federation = Federation.open(folder)
    found = up.require(federation)
    return _Explained(wire.Control(found.superlink, federation.ca / "ca.crt"), federation.folder)
