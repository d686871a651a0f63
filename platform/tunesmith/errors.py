"""Every error Tunesmith raises on purpose, and the exit code each one ends a command with.

::

    TunesmithError               1  something failed that the user did not cause
    ├── UserError                2  the user can fix it; the message says how
    │   ├── RecipeError          2  one or more mistakes in a recipe or a gate, all listed
    │   ├── DataError            2  the data is missing, malformed, or does not fit the task
    │   ├── ModelError           2  the model cannot be loaded or does not fit the task
    │   ├── RunError             2  a run folder is missing, unfinished, or of another recipe
    │   ├── ClusterError         2  the cluster is unreachable or too small for what was asked
    │   └── ServiceError         2  a service cannot be reached, or refuses what it was asked
    ├── TrainingFailed           1  a worker failed for a reason of its own; the log is named
    └── GateFailed               3  a release gate did not pass

:class:`Terminated` is no error: it is how SIGTERM ends a command, beside KeyboardInterrupt for Ctrl-C.

A message says what was found, where, why it is wrong and what to do. Users never see a traceback for their own mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USER = 2
EXIT_GATE = 3


class TunesmithError(Exception):
    """Something failed that the user did not cause."""

    exit_code = EXIT_ERROR


class UserError(TunesmithError):
    """The user can fix this; the message says how."""

    exit_code = EXIT_USER


class DataError(UserError):
    """The data is missing, malformed, or does not fit the task."""


class ModelError(UserError):
    """The model cannot be loaded, or does not fit the task or the data."""


class RunError(UserError):
    """A run folder is missing, unfinished, unwritable, or belongs to another recipe."""


class ClusterError(UserError):
    """The cluster cannot be reached, or has less than was asked for."""


class ServiceError(UserError):
    """A service cannot be reached, or refuses what it was asked."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """``status`` is that of its HTTP answer; None where it gave none."""
        super().__init__(message)
        self.status = status


class TrainingFailed(TunesmithError):
    """Training failed for a reason of its own; the message names the log."""


class GateFailed(TunesmithError):
    """A release gate did not pass."""

    exit_code = EXIT_GATE


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): it does so as at Ctrl-C, and exits with 143 instead of 130."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a recipe: where it stands, what is wrong, and what to do."""

    key: str
    """Dotted key, such as ``training.learning_rate``."""
    what: str
    """What was found and why it is wrong."""
    fix: str = ""
    """What to write instead."""
    file: str = ""
    """The recipe's path, or ``command line`` for an override."""
    line: int | None = None
    """Line in the file, from 1."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        head = f"{where}: {self.key}: {self.what}" if where else f"{self.key}: {self.what}"
        return f"{head}\n    → {self.fix}" if self.fix else head


class RecipeError(UserError):
    """One or more mistakes in a recipe (or in a gate), all of them listed together."""

    def __init__(self, mistakes: Sequence[Mistake], of: str = "recipe") -> None:
        """``of`` is what they are in: the ``recipe``, or another file that is read like one."""
        self.mistakes, self.of = tuple(mistakes), of
        count = len(self.mistakes)
        head = f"{count} mistake{'s' if count != 1 else ''} in the {of}"
        super().__init__("\n".join([head, *(f"  {m}".replace("\n", "\n  ") for m in self.mistakes)]))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[tuple[Mistake, ...], str]]:
        return (type(self), (self.mistakes, self.of))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name of ``names`` that is most like ``name``, or None if none is near.

    >>> nearest("lerning_rate", ["learning_rate", "seed"])
    'learning_rate'
    >>> nearest("zzz", ["learning_rate", "seed"]) is None
    True
    """
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None
