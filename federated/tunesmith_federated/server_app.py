"""The ServerApp: the round loop of the job whose folder the run's config names.

::

    job.json        what is to be done
    events.jsonl    what was told on the way; `tunesmith federate` reads it
    outcome.json    the job, with the frozen state that all sites share; or why it ended
    (and the book)  :mod:`tunesmith_federated.server_state`
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesmith_federated.flower import Context, Grid, ServerApp

ORPHAN_LOOK_SECONDS = 1.0

AGAIN_SECONDS = 30.0
"""After which a site that is online and silent is asked once more; doubled each time."""
GRACE_SECONDS = 30.0
"""For which a round waits for a site that is new and has yet to say what it holds (one that was started again reads its rows
before it answers); what it says later counts from the next round on."""

JOB, EVENTS, OUTCOME, LOCK = "job.json", "events.jsonl", "outcome.json", "server.lock"

app = ServerApp()


@dataclass(frozen=True)
class Job:
    """What the server app is told."""

    id: str
    recipe: str
    """Where the run's recipe is."""
    most_bytes: int
    wait_s: float
    signatures: list[str] = field(default_factory=list)
    """Of the recipe, for sites that allow by signer."""

    def write(self, folder: Path) -> None:
        """Into its folder."""
        from tunesmith import storage

        folder.mkdir(parents=True, exist_ok=True)
        storage.write_json(str(folder / JOB), asdict(self))


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower calls it."""
    from tunesmith_federated.deployment.patient import patient

    threading.Thread(target=_end_with, args=(os.getppid(),), name="orphan-watch", daemon=True).start()
    serve(Path(str(context.run_config["job"])), patient(grid))


def _end_with(parent: int) -> None:
    """End this process when the executor that started it is gone: an orphan would hold the job, and ask a SuperLink that is no
    more.
    """
    while os.getppid() == parent:
        time.sleep(ORPHAN_LOOK_SECONDS)
    os._exit(1)


def serve(folder: Path, grid: Grid) -> None:
    """All rounds of the job in this folder; an error that ends them for good is its outcome, for the one who waits."""
    from tunesmith import storage
    from tunesmith.errors import TunesmithError
    from tunesmith.recipe import Recipe
    from tunesmith.tasks import load_task
    from tunesmith_federated.rounds import Federation, Plan

    job = Job(**storage.read_json(str(folder / JOB)))
    with _alone(folder), (folder / EVENTS).open("a", encoding="utf-8") as events:

        def tell(event: Mapping[str, Any]) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        try:
            recipe = Recipe.load(job.recipe, check_paths=False).resolved()
            line = job.most_bytes, job.wait_s, AGAIN_SECONDS, GRACE_SECONDS
            plan = Plan(job.id, recipe, load_task(recipe.task), folder, None, *line, tuple(job.signatures))
            federation = Federation(plan, grid, tell)
            federation.run()
            outcome: dict[str, Any] = {"job": job.id, "state": dict(federation.state)}
        except TunesmithError as error:
            outcome = {"error": type(error).__name__, "message": str(error)}
        storage.write_json(str(folder / OUTCOME), outcome)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two servers of one job would write over one another: the second waits until the first has ended."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
