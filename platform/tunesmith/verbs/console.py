"""The terminal: one rich console for results and one for messages, made when first asked for."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 160
"""Columns where the output is no terminal, so that lines in a log are not broken."""


@cache
def out() -> Console:
    """The console for results, on standard output. Plain where that is no terminal, uncoloured under ``NO_COLOR``."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


@cache
def err() -> Console:
    """The console for progress and messages, on standard error, so that results can be piped."""
    from rich.console import Console

    width = None if sys.stderr.isatty() else PLAIN_WIDTH
    return Console(file=_own_stderr(), stderr=True, highlight=False, soft_wrap=True, width=width)


def _own_stderr() -> IO[str] | None:
    """A way to the screen that stays while descriptor 2 is led away from it (to keep Ray's words off the screen).

    None where standard error is not the process's own, as in tests and notebooks.
    """
    try:
        if sys.stderr.fileno() != 2:
            return None
        return open(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    except (OSError, ValueError, AttributeError):
        return None
