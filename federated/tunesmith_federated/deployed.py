"""A run over real sites: submitted to a federation that is up, followed, and submitted again where its server died."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import errors, storage
from tunesmith.errors import ServiceError, TunesmithError
from tunesmith_federated.server_app import EVENTS, OUTCOME, Job

if TYPE_CHECKING:
    from tunesmith.tasks.base import State

SUBMITTED = "submitted.json"
LOOK_SECONDS = 0.5
MOST_BYTES = 200_000_000
"""A message above it made Flower's database fail (`database is locked`), measured with Flower 1.41."""
DEATHS = 5
"""Servers that may die one after the other without a round between them."""
UNREACHABLE_SECONDS = 180.0
"""How long a federation may be down while it is followed."""


def follow(folder: Path, federation: str, job: Job, tell: Callable[[Mapping[str, Any]], None]) -> State:
    """Run the job until it has an outcome; returns the frozen state that the sites share. Of a job that has run to its end,
    what it ended with is told again: nothing is asked of its sites once more.

    Raises the error that ended it, or :class:`ServiceError` where the federation is not up or its server dies again and again.
    """
    from tunesmith_federated.deployment import jobs

    job.write(folder)
    known = _outcome(folder)
    if "state" in known and known.get("job") == job.id:
        _hear(folder, int(_submitted(folder).get("heard", 0)), tell)
        return _ended(known)
    (folder / OUTCOME).unlink(missing_ok=True)
    run_id, heard = _attached(folder, federation)
    deaths, unreachable = 0, time.monotonic()
    try:
        while True:
            time.sleep(LOOK_SECONDS)
            heard, turned = _hear(folder, heard, tell)
            deaths = 0 if turned else deaths
            if (folder / OUTCOME).exists():
                heard, _ = _hear(folder, heard, tell)
                return _ended(_outcome(folder))
            try:
                state, unreachable = jobs.state(run_id, federation), time.monotonic()
            except ServiceError:
                if time.monotonic() - unreachable > UNREACHABLE_SECONDS:
                    raise
                continue
            if state.status == "finished" and not (folder / OUTCOME).exists():
                deaths += 1
                if state.outcome == "stopped" or deaths > DEATHS:
                    raise ServiceError(
                        f"the federation's server ended without a word: {state.outcome} {state.details}".rstrip()
                        + "\n    → See the federation's logs; the same command goes on from the last round"
                    )
                tell({"kind": "note", "message": "The server of the rounds has died; another goes on from the last round"})
                run_id = _submit(folder, federation, heard)
    except KeyboardInterrupt:
        jobs.cancel(run_id, federation)
        raise


def _attached(folder: Path, federation: str) -> tuple[int, int]:
    """The Flower run that is under way for this job, or a new one; and how much of its events was heard."""
    from tunesmith_federated.deployment import jobs

    known = _submitted(folder)
    heard = int(known.get("heard", 0))
    if known.get("federation") == federation:
        try:
            if jobs.state(int(known["run"]), federation).status != "finished":
                return int(known["run"]), heard
        except ServiceError:
            pass  # it is another SuperLink now, which knows nothing of that run
    return _submit(folder, federation, heard), heard


def _submit(folder: Path, federation: str, heard: int) -> int:
    from tunesmith_federated.deployment import jobs

    run_id = jobs.submit(folder, federation)
    storage.write_json(str(folder / SUBMITTED), {"run": run_id, "federation": federation, "heard": heard})
    return run_id


def _hear(folder: Path, heard: int, tell: Callable[[Mapping[str, Any]], None]) -> tuple[int, bool]:
    """Hand on what was told since; returns how many bytes were heard, and whether a round ended among them."""
    place = folder / EVENTS
    if not place.exists():
        return heard, False
    with place.open("rb") as file:
        file.seek(heard)
        lines = file.read().split(b"\n")[:-1]
    turned = False
    for line in lines:
        heard += len(line) + 1
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short when its server was killed
        turned = turned or event["kind"] == "round"
        tell(event)
    if lines:
        storage.write_json(str(folder / SUBMITTED), {**_submitted(folder), "heard": heard})
    return heard, turned


def _submitted(folder: Path) -> dict[str, Any]:
    """Which Flower run was asked for last, and how much of its events was heard."""
    place = folder / SUBMITTED
    return dict(storage.read_json(str(place))) if place.exists() else {}


def _outcome(folder: Path) -> dict[str, Any]:
    place = folder / OUTCOME
    return dict(storage.read_json(str(place))) if place.exists() else {}


def _ended(outcome: Mapping[str, Any]) -> State:
    if "error" in outcome:
        kind = getattr(errors, str(outcome["error"]), TunesmithError)
        raise kind(str(outcome["message"]))
    state: State = outcome["state"]
    return state
