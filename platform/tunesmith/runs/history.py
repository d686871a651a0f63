"""``metrics.jsonl``: one JSON object a line, safe against a crash in the middle of a line and against doubling on a resume."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tunesmith import storage

FLUSH_SECONDS = 5.0
"""Object stores cannot append, so lines wait so long before the file is written there again."""


class History:
    """The lines of one run. On a disk every line is written at once; elsewhere at most every few seconds, see :meth:`flush`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._pending: list[str] = []
        self._flushed = time.monotonic()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line. Raises :class:`UserError` where it cannot be written (full disk)."""
        line = storage.json_line(dict(record))
        if storage.is_local(self.place):
            storage.append_line(self.place, line)
            return
        self._pending.append(line)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the lines that still wait."""
        if self._pending:
            storage.append_line(self.place, "\n".join(self._pending))
            self._pending.clear()
        self._flushed = time.monotonic()

    def read(self) -> list[dict[str, Any]]:
        """All lines; one that a crash cut short is left out."""
        self.flush()
        if not storage.exists(self.place):
            return []
        records = (_parsed(line) for line in storage.read_bytes(self.place).splitlines())
        return [record for record in records if record is not None]

    def truncate_after(self, step: int) -> int:
        """Drop the lines beyond a checkpoint's step, which training will write again; returns how many were dropped."""
        before = self.read()
        kept = [r for r in before if not isinstance(r.get("step"), int) or r["step"] <= step]
        if len(kept) != len(before):
            storage.write_text(self.place, "".join(storage.json_line(r) + "\n" for r in kept))
        return len(before) - len(kept)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a line, or None for half a line."""
    try:
        record = json.loads(line)
    except ValueError:  # also a character that was cut in two
        return None
    return record if isinstance(record, dict) else None
