"""The terminal: one rich console for results and one for messages, made when first asked for."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

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

    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH)
