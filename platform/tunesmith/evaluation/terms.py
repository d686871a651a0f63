"""By what predictions are read: the task, its labels and what the answers cannot tell, kept beside them.

A run's model says this itself. A served model has no folder, so that its evaluation keeps it in ``terms.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith import storage
from tunesmith.errors import DataError
from tunesmith.tasks import load_task
from tunesmith.tasks.base import State, Task

FILE = "terms.json"
FORMAT = 1


@dataclass(frozen=True)
class Terms:
    """How records become metrics."""

    task: Task
    state: State
    without: frozenset[str] = frozenset()
    """Metrics, by their name without an average, and kinds of charts, that these answers cannot tell."""

    def told(self, found: Mapping[str, float]) -> Mapping[str, float]:
        """The metrics that they can tell.

        >>> from types import SimpleNamespace
        >>> Terms(SimpleNamespace(), {}, frozenset({"loss"})).told({"accuracy": 1.0, "loss": 0.1})
        {'accuracy': 1.0}
        """
        if not self.without:
            return found
        return {name: value for name, value in found.items() if not self._is_unknown(name)}

    def _is_unknown(self, name: str) -> bool:
        return any(name == one or name.startswith(f"{one}_") for one in self.without)

    def write(self, folder: str) -> None:
        """Put ``terms.json`` into the evaluation's folder."""
        values = {"format": FORMAT, "task": self.task.name, "state": dict(self.state), "without": sorted(self.without)}
        storage.write_json(storage.join(folder, FILE), values)


def read(folder: str) -> Terms | None:
    """The terms kept in a folder; None where there are none. Raises :class:`DataError` where they cannot be read."""
    place = storage.join(folder, FILE)
    try:
        values = storage.read_json(place)
        return Terms(load_task(values["task"]), values["state"], frozenset(values["without"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} is damaged: {error!r}\n    → Make it again with `tunesmith evaluate`") from error
