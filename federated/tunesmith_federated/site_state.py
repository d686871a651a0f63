"""What a site keeps between rounds, on its own disk: a restart of the site, or of the server, finds it again.

Kept by round, so that a round that is made once more (the server died before it counted) starts from the same. After a round
that did not count, the next starts from the last that did: what the server has of a site and what the site has belong together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save

from tunesmith import storage

if TYPE_CHECKING:
    from tunesmith_federated.protocol import Tensors

KEPT_ROUNDS = 3
"""Versions that are kept beside the last that counted: the server may ask for the last round again, never for an older one."""

_NAME = re.compile(r"round-(\d{6})\.safetensors")


class SiteState:
    """The states of one federated run at one site."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def before(self, number: int, counted: int | None = None) -> Tensors:
        """What was kept by the latest round before this one, and not after ``counted``; empty the first time."""
        found = self._before(number, counted)
        return {} if found is None else load_file(self._file(found))

    def keep(self, number: int, tensors: Tensors, counted: int | None = None) -> None:
        """Keep the state of a round, in one piece; older ones than the last few go, but for what :meth:`before` gives."""
        self._folder.mkdir(parents=True, exist_ok=True)
        begun = self._before(number, counted)
        storage.write_bytes(str(self._file(number)), save({name: value.contiguous() for name, value in tensors.items()}))
        for old in sorted(self._rounds())[:-KEPT_ROUNDS]:
            if old != begun:
                self._file(old).unlink(missing_ok=True)

    def _before(self, number: int, counted: int | None) -> int | None:
        last = number - 1 if counted is None else min(number - 1, counted)
        return max((one for one in self._rounds() if one <= last), default=None)

    def _rounds(self) -> list[int]:
        found = (_NAME.fullmatch(file.name) for file in self._folder.glob("round-*.safetensors"))
        return [int(match[1]) for match in found if match]

    def _file(self, number: int) -> Path:
        return self._folder / f"round-{number:06d}.safetensors"
