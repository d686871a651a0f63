"""What each job has had of a site, over restarts too: ``used.json`` in its state folder. The owner's limits are held to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith import storage
from tunesmith_federated.deployment.certificates import write_secret
from tunesmith_federated.deployment.policy import Used


class Ledger:
    """The file in a folder. One process writes it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "used.json"

    def used(self, job: str) -> Used:
        """What the job has had so far."""
        values = self._read().get(job, {})
        rounds = frozenset(values.get("rounds", ()))
        return Used(rounds, float(values.get("seconds", 0.0)), int(values.get("trainings", len(rounds))))

    def left(self, job: str, limit: float) -> float:
        """Seconds that the job may still take."""
        return max(0.0, limit - self.used(job).seconds)

    def charge(self, job: str, seconds: float, trained: int | None = None, left: bool = False) -> None:
        """Add seconds, the round that was trained in them, and whether an update of it leaves.

        Raises :class:`OSError` where it cannot be written.
        """
        known, used = self._read(), self.used(job)
        rounds = used.rounds | (frozenset() if trained is None else {trained})
        known[job] = {"rounds": sorted(rounds), "seconds": used.seconds + seconds, "trainings": used.trainings + left}
        write_secret(self._path, json.dumps(known).encode())

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = storage.read_json(str(self._path))
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}
