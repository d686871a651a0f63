"""The site's audit log: what was asked, done, refused and sent; one JSON object a line, each with the hash of the one before.

A line that is changed, left out or put in breaks the chain at its number. Lines cut off the end are found by ``audit.head``,
which holds the last hash; whoever can write both can forge both, so note the head elsewhere from time to time (``site audit``
prints it).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith_federated.deployment.certificates import write_secret

BEGINNING = "0" * 64
"""What the first line names as the hash before it."""


class DiskTrouble(Exception):
    """The site's own disk does not take what must be written; it says so in words that the server may read.

    No refusal: there may be room again before the server asks once more.
    """


@dataclass(frozen=True)
class Verdict:
    """What is known about a log."""

    entries: int
    head: str
    """Hash of the last line."""
    broken: int | None = None
    """Number of the first line that is not as it was written, from 1; None where all are."""
    why: str = ""


class AuditLog:
    """``audit.jsonl`` and ``audit.head`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path, self.head = folder / "audit.jsonl", folder / "audit.head"

    def append(self, event: str, **facts: Any) -> None:
        """Add a line, on the disk when this returns. Raises :class:`OSError` where it cannot be; then nothing of it stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            last = _last_line(file.name)
            before: dict[str, Any] = json.loads(last) if last else {"n": 0, "hash": BEGINNING}
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            entry = {"n": before["n"] + 1, "time": now, "event": event, **facts, "before": before["hash"]}
            entry["hash"] = _hash(entry)
            end = file.seek(0, os.SEEK_END)
            try:
                _write(file, _encoded(json.dumps(entry, ensure_ascii=False)) + b"\n")
                os.fsync(file.fileno())
                write_secret(self.head, f"{entry['n']} {entry['hash']}\n".encode())
            except OSError:  # a full disk takes half a line, or the line and not its head
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise

    def read(self) -> Iterator[dict[str, Any]]:
        """The entries, first to last, without checking them; what is no entry is left out."""
        for line in self._lines():
            entry = _parse(line)
            if entry is not None:
                yield entry

    def verify(self) -> Verdict:
        """Whether every line is as it was written."""
        before, count = BEGINNING, 0
        for number, line in enumerate(self._lines(), start=1):
            entry = _parse(line)
            if entry is None:
                return Verdict(count, before, number, "it is no entry")
            if entry.get("n") != number or entry.get("before") != before:
                return Verdict(count, before, number, "it does not follow the line before it")
            if entry.get("hash") != _hash(entry):
                return Verdict(count, before, number, "it was changed after it was written")
            before, count = entry["hash"], number
        written = self._written()
        if written is not None and written != (count, before):
            if written[0] == count - 1 and self._before_last() == written[1]:
                return Verdict(count, before)  # the process ended between the line and the head
            return Verdict(count, before, count + 1, f"audit.head knows {written[0]} lines: the end was cut off or put in")
        return Verdict(count, before)

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def _before_last(self) -> str:
        entry = _parse(self._lines()[-1])
        return str(entry.get("before")) if entry else ""

    def _written(self) -> tuple[int, str] | None:
        try:
            number, _, head = self.head.read_text(encoding="utf-8").strip().partition(" ")
            return int(number), head
        except (FileNotFoundError, ValueError):
            return None


def _hash(entry: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in entry.items() if key != "hash"}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(_encoded(text)).hexdigest()


def _encoded(text: str) -> bytes:
    r"""Half of a surrogate pair as JSON escapes it (``\ud800``): whatever a server sends can be written down."""
    return text.encode("utf-8", "backslashreplace")


def _write(file: io.FileIO, data: bytes) -> None:
    """All of it: without a buffer a file may take less than it is given."""
    while data:
        data = data[file.write(data) or 0 :]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _last_line(path: str) -> bytes:
    """The last whole line; half a line at the end (the power went) is cut off first."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        size = 4096
        while True:
            start = max(0, end - size)
            file.seek(start)
            tail = file.read(end - start)
            whole = tail[: tail.rfind(b"\n") + 1]
            lines = whole.splitlines()
            if start == 0 or len(lines) > 1:
                if len(whole) < len(tail):
                    file.truncate(start + len(whole))
                return lines[-1] if lines else b""
            size *= 4
