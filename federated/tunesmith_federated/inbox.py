"""One round's replies in one file on the server's disk: a server that is killed and started again finds what had come.

Each reply is added at the file's end: its words, then its tensors as they came. Tensors are read when they are asked for, so
what has come takes no memory. What was rejected or replaced stays in the file until it is much more than what counts; then the
file is written anew. The disk is not waited for, which would take longer than all else that is done with a small reply: after a
power cut a checksum tells what is whole; what comes after the first damage is cut off, and those sites are asked again.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tunesmith import storage
from tunesmith_federated.bundle import Bundle, Bytes, Layout, layout_of
from tunesmith_federated.protocol import Reply, Tensors

_HEAD = struct.Struct("<QI4x")
"""Before each entry: the length of its words in bytes, and the checksum of all that follows."""
_ALIGNED = 8
"""Bytes that each part of an entry is filled up to a multiple of."""
_MOST_DEAD = 64 << 20
"""Bytes of forgotten entries, beyond those of the entries that count, at which the file is written anew."""
_AT_ONCE = 1 << 20
"""Bytes that are copied at a time."""


class Inbox:
    """The replies in the file at ``path``, one of each site."""

    def __init__(self, path: str | Path) -> None:
        """What an earlier server got is there; what it left half-written is cut off."""
        self._path = Path(path)
        storage.make_dir(str(self._path.parent))
        self._entries: dict[str, _Entry] = {}
        self._end = 0
        """Bytes of all entries that are whole."""
        with storage.explaining(self._path):
            self._new.unlink(missing_ok=True)
            if self._path.exists() and self._path.stat().st_size:
                self._find()
                os.truncate(self._path, self._end)

    def put(self, reply: Reply, update: Bundle, extras: Bundle) -> None:
        """Keep a reply, in place of an earlier one of the same site. Raises :class:`UserError` where the disk is full."""
        words = json.dumps({"reply": reply.to_json(), "parts": [update.size, extras.size]}).encode()
        begins = self._end
        at = begins + _HEAD.size + _filled(len(words))
        self._append(words, update, extras)
        first, second = _Part(update.layout, at), _Part(extras.layout, at + _filled(update.size))
        self._entries[reply.site] = _Entry(reply, first, second, begins, self._end)
        self._tidy()

    def sites(self) -> list[str]:
        """Those whose reply is there and not rejected, sorted."""
        return sorted(self._entries)

    def reply(self, site: str) -> Reply:
        """Its words. Raises KeyError where nothing has come."""
        return self._entries[site].reply

    def update(self, site: str) -> Stored:
        """Its update, on the disk; to be read before the next reply comes, which may move it."""
        return Stored(self._path, self._entries[site].reply, self._entries[site].update)

    def extras(self, site: str) -> Stored:
        """What came beside it, on the disk."""
        return Stored(self._path, self._entries[site].reply, self._entries[site].extras)

    def reject(self, site: str) -> None:
        """Forget what came from a site, for good."""
        if self._entries.pop(site, None) is not None:
            self._append(json.dumps({"rejected": site}).encode())
            self._tidy()

    def clear(self) -> None:
        """Forget the round."""
        self._path.unlink(missing_ok=True)
        self._entries.clear()
        self._end = 0

    def _append(self, words: bytes, *bundles: Bundle) -> None:
        """An entry at the file's end, whole or not at all."""
        parts: list[list[Bytes]] = [[words], *(one.pieces() for one in bundles)]
        pieces: list[Bytes] = []
        for part in parts:
            length = sum(len(piece) for piece in part)
            pieces += [*part, bytes(_filled(length) - length)]
        checksum = 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        with storage.explaining(self._path), self._path.open("ab", buffering=0) as file:
            try:
                for piece in (_HEAD.pack(len(words), checksum), *pieces):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(self._end)
                raise
            self._end = file.tell()

    @property
    def _new(self) -> Path:
        return self._path.with_name(f"{self._path.name}.new")

    def _tidy(self) -> None:
        """Write the file anew, without what is forgotten, once that is too much."""
        live = sum(one.end - one.begins for one in self._entries.values())
        if self._end - 2 * live <= _MOST_DEAD:
            return
        moved, at = {}, 0
        with storage.explaining(self._new):
            try:
                with self._new.open("wb") as new:
                    for site, one in self._entries.items():
                        for first in range(one.begins, one.end, _AT_ONCE):
                            new.write(_read(self._path, 0, first, min(first + _AT_ONCE, one.end)))
                        moved[site] = one.moved(at - one.begins)
                        at = moved[site].end
                self._new.replace(self._path)
            except OSError:
                self._new.unlink(missing_ok=True)
                raise
        self._entries, self._end = moved, at

    def _find(self) -> None:
        """Take up what an earlier server kept, up to the first damage."""
        with self._path.open("rb") as file:
            held = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        while len(held) - self._end > _HEAD.size:
            letters, checksum = _HEAD.unpack_from(held, self._end)
            start = self._end + _HEAD.size
            try:
                words = json.loads(bytes(held[start : start + letters]))
                at = [start + _filled(letters)]
                for length in words.get("parts", ()):
                    at.append(at[-1] + _filled(length))
                if at[-1] > len(held) or zlib.crc32(held[start : at[-1]]) != checksum:
                    return
                if "rejected" in words:
                    self._entries.pop(words["rejected"], None)
                else:
                    reply = Reply.from_json(words["reply"])
                    parts = [_Part(layout_of(held[one : one + n]), one) for one, n in zip(at, words["parts"], strict=False)]
                    self._entries[reply.site] = _Entry(reply, parts[0], parts[1], self._end, at[-1])
            except (ValueError, KeyError, TypeError, IndexError):  # what is damaged may look like anything
                return
            self._end = at[-1]


@dataclass(frozen=True)
class _Part:
    """Tensors in the file."""

    layout: Layout
    start: int

    def moved(self, by: int) -> _Part:
        return replace(self, start=self.start + by)


@dataclass(frozen=True)
class _Entry:
    reply: Reply
    update: _Part
    extras: _Part
    begins: int
    """Its first byte in the file."""
    end: int
    """The one after its last."""

    def moved(self, by: int) -> _Entry:
        update, extras = self.update.moved(by), self.extras.moved(by)
        return replace(self, update=update, extras=extras, begins=self.begins + by, end=self.end + by)


class Stored(Bundle):
    """Tensors of one site that are on the disk: an ``Update``."""

    def __init__(self, path: Path, reply: Reply, part: _Part) -> None:
        super().__init__(part.layout, partial(_read, path, part.start + part.layout.begins))
        self.site, self.examples = reply.site, reply.examples

    def names(self) -> Sequence[str]:
        """Of its tensors, sorted."""
        return sorted(self)

    def tensor(self, name: str) -> torch.Tensor:
        """One of them, float32. Raises KeyError."""
        return self[name].float()

    def load(self) -> Tensors:
        """All of them, in memory."""
        return dict(self)


def _read(path: Path, start: int, first: int, end: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start + first)
        found = file.read(end - first)
    if len(found) < end - first:
        raise OSError(f"{path} is shorter than it was")  # somebody has cut it
    return found


def _filled(length: int) -> int:
    return length + -length % _ALIGNED
