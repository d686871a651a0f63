"""The journal of answers beside the file that they will make: a command that was killed goes on from it.

One line of JSON for each answered sample, behind a first line that says what is asked and whom; a line that was cut off in the
middle counts for nothing. A line has the sample's number ``i``, its contents' hash or id ``h``, the answer ``a`` or the reason
``p`` why there is none, the seconds ``t`` of the request that answered it, and the version ``v`` of the model that the server
names. Answers of two versions do not stand in one journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from tunesmith.errors import ServiceError, UserError
from tunesmith.evaluation.targets import Reply

SYNCED = 256
"""Lines after which the disk has them: more would be lost where the machine itself fails. A killed process loses none."""


class Journal:
    """The answers so far, in a file that only grows; :meth:`remove` ends it."""

    def __init__(self, path: Path, job: Mapping[str, Any], option: str = "--out") -> None:
        """``job`` must be the same for answers to belong together; ``option`` names another place, in messages."""
        self.path, self._job, self._option = path, dict(job), option
        self.version: str | None = None
        """The version of the model whose answers are kept; None until the server has named one."""
        self._places: dict[int, int] = {}
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Raises :class:`UserError` where another process writes it, or it is of something else."""
        stream = self.path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise UserError(
                f"another process writes {self.path}\n    → Wait for it, or name another {self._option}."
            ) from error
        self._stream = stream
        try:
            self._read(stream)
        except BaseException:
            stream.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            if not self._places:
                self.remove()
            else:
                os.fsync(self._stream)
            self._stream.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def add(self, index: int, content: str, reply: Reply) -> None:
        """Keep a reply; it is with the operating system when this returns.

        Raises :class:`ServiceError` where another version of the model has answered than before.
        """
        assert self._stream is not None
        self._check(reply)
        line = {"i": index, "h": content} | ({"p": reply.problem} if reply.problem is not None else {"a": reply.answer})
        if reply.seconds is not None:
            line["t"] = round(reply.seconds, 6)
        if reply.version is not None:
            line["v"] = reply.version
        self._places[index] = self._stream.seek(0, 2)
        self._stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._stream.flush()
        if len(self._places) % SYNCED == 0:
            os.fsync(self._stream)

    def get(self, index: int) -> dict[str, Any]:
        """What was kept: ``h``, and ``a`` or ``p``; ``t`` where it was asked of a service."""
        assert self._stream is not None
        self._stream.seek(self._places[index])
        return dict(_line(self._stream.readline()) or {})

    def remove(self) -> None:
        """It is no longer needed."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _check(self, reply: Reply) -> None:
        if reply.version is None:
            return
        self.version = self.version or reply.version
        if reply.version != self.version:
            raise ServiceError(
                f"version {reply.version} of the model answers, and {self.path} is of the answers of version {self.version}\n"
                "    → Name the version in the URL (…/v2/models/NAME/versions/VERSION), or begin anew in another "
                f"{self._option}."
            )

    def _read(self, stream: IO[bytes]) -> None:
        stream.seek(0)
        head, line = json.dumps(self._job).encode() + b"\n", stream.readline()
        if not line.endswith(b"\n") and head.startswith(line):  # it is new, or was cut off in its first line
            stream.truncate(0)
            stream.write(head)
            stream.flush()
            return
        first = _line(line)
        if first is None:
            raise UserError(
                f"{self.path} is there already, and holds no answers of ours"
                f"\n    → Move it away, or name another {self._option}."
            )
        if first != self._job:
            what = next((name for name in self._job if first.get(name) != self._job[name]), "format")
            raise UserError(
                f"{self.path} has answers of an earlier run with another {'model' if what == 'target' else what}"
                f"\n    → Delete it to begin anew, or name another {self._option}."
            )
        while True:
            place = stream.tell()
            line = stream.readline()
            found = _line(line)
            if found is None:
                stream.truncate(place)
                return
            self._places[int(found["i"])] = place
            self.version = self.version or found.get("v")


def _line(line: bytes) -> dict[str, Any] | None:
    """A whole line's object, or None."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
