"""Rows that cannot be used: counted, listed, and written down with the reason, so that nothing is silently lost."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tunesmith import storage
from tunesmith.errors import DataError

log = logging.getLogger(__name__)

SHOWN = 10
"""Problems listed in a message and in the manifest."""

OnBadRow = Literal["error", "drop", "quarantine"]


@dataclass(frozen=True)
class Problem:
    """One row that cannot be used."""

    split: str
    file: str
    row: int
    """Line or row in the file, from 1."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row} ({self.split}): {self.reason}"


class Problems:
    """All problems met so far, and what is to be done about them."""

    def __init__(self, on_bad_row: OnBadRow, quarantine: Path) -> None:
        self.on_bad_row = on_bad_row
        self.first: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.by_split: Counter[str] = Counter()
        self._quarantine = quarantine
        self._settled = 0
        self._stream: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is not None:
            self._stream.close()

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, problem: Problem, row: Mapping[str, Any]) -> None:
        """Note a problem; with ``quarantine`` the row is written to ``quarantine.jsonl`` too."""
        self.counts[problem.reason.partition(": ")[0]] += 1
        self.by_split[problem.split] += 1
        if len(self.first) < SHOWN:
            self.first.append(problem)
        if self.on_bad_row == "quarantine":
            if self._stream is None:
                self._stream = self._quarantine.open("w", encoding="utf-8", errors="backslashreplace")
            shown = {name: f"{len(value)} bytes" if isinstance(value, bytes) else value for name, value in row.items()}
            entry = {"split": problem.split, "file": problem.file, "row": problem.row, "reason": problem.reason}
            self._stream.write(storage.json_line({**entry, "data": _writable(shown)}) + "\n")

    def count(self, *words: str) -> int:
        """Problems whose reason has one of these words in it."""
        return sum(count for reason, count in self.counts.items() if any(word in reason.split() for word in words))

    def settle(self, rows: Mapping[str, int]) -> None:
        """Stop, where bad rows are an error; else say how many are left out. ``rows`` counts what was read of each split.

        Raises :class:`DataError` with the first problems and the count of each reason.
        """
        if len(self) == self._settled:
            return
        self._settled = len(self)
        total = sum(rows.values())
        if self.on_bad_row == "error":
            raise DataError(self.message(total))
        done = "quarantined, with the reason, in quarantine.jsonl" if self.on_bad_row == "quarantine" else "dropped"
        log.warning("%d of %d rows cannot be used and are %s: %s", len(self), total, done, self._reasons())

    def message(self, total: int) -> str:
        """The first problems, how many there are of each kind where there are several of one, and what to do."""
        lines = [f"{len(self)} of {total} rows cannot be used"]
        lines += [f"  {problem}" for problem in self.first]
        if len(self) > len(self.first):
            lines.append(f"  … and {len(self) - len(self.first)} more")
        if len(self) > len(self.counts):
            lines.append(f"  in all: {self._reasons()}")
        lines.append("    → Mend these rows, or set data.on_bad_row to drop or quarantine.")
        return "\n".join(lines)

    def report(self) -> dict[str, Any]:
        """All of it as plain data, for the manifest."""
        return {
            "total": len(self),
            "on_bad_row": self.on_bad_row,
            "by_reason": dict(self.counts.most_common()),
            "by_split": dict(self.by_split),
            "first": [vars(problem) for problem in self.first],
        }

    def _reasons(self) -> str:
        common = self.counts.most_common(SHOWN)
        more = f"; {len(self.counts) - len(common)} other reasons" if len(self.counts) > len(common) else ""
        return "; ".join(f"{count} × {reason}" for reason, count in common) + more


def _writable(row: Mapping[str, Any]) -> Any:
    """The row with values that JSON lacks (dates) as text."""
    return json.loads(json.dumps(row, default=str))
