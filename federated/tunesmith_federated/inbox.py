"""One round's replies on the server's disk: a server that is killed and started again finds what had come.

Each reply is one safetensors file that holds its tensors and, as metadata, its words; it appears whole or not at all. Tensors
are read one at a time, so what has come takes no memory. The disk is not waited for, which would take longer than all else that
is done with a small reply: after a power cut a checksum tells what is whole, and the other sites are asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from tunesmith import storage
from tunesmith_federated.codec import packed
from tunesmith_federated.protocol import Reply, Tensors

_REPLY, _REJECTED = ".reply.safetensors", ".rejected.json"
_LONGEST = 120
"""Letters of an encoded site in a file's name, which may have 255."""
_WHOLE = 1 << 26
"""Bytes of a file that is read at once: one by one the tensors of a small model take three times as long."""

_PIECE = 1 << 20
"""Bytes that are read at a time where all are read."""


class Inbox:
    """The replies in one folder, each under its site's name, whatever that is."""

    def __init__(self, folder: str | Path) -> None:
        """Made where it is missing; what a killed server left half-written is removed."""
        self.folder = Path(folder)
        storage.make_dir(str(folder))
        self._replies: dict[str, Reply] = {}
        self._rejected: dict[str, str] = {}
        self._open: tuple[str, Any] | None = None
        """The file that was read last: one is open at a time."""
        for path in sorted(self.folder.iterdir()):
            if path.name.endswith(_REPLY):
                self._find(path)
            elif path.name.endswith(_REJECTED):
                known = json.loads(path.read_text(encoding="utf-8"))
                self._rejected[known["site"]] = known["reason"]
            else:
                path.unlink(missing_ok=True)

    def put(self, reply: Reply, update: Mapping[str, torch.Tensor], extras: Mapping[str, torch.Tensor]) -> None:
        """Keep a reply, in place of an earlier one of the same site. Raises :class:`UserError` where the disk is full."""
        named = {
            f"{part}/{name}": tensor for part, held in (("update", update), ("extras", extras)) for name, tensor in held.items()
        }
        content = packed(named, {"reply": reply.to_json()}, checksum=zlib.crc32)
        self._close(reply.site)
        storage.write_bytes(str(self._path(reply.site, _REPLY)), content, flush=False)
        self._path(reply.site, _REJECTED).unlink(missing_ok=True)
        self._rejected.pop(reply.site, None)
        self._replies[reply.site] = reply

    def sites(self) -> list[str]:
        """Those whose reply is there and not rejected, sorted."""
        return sorted(self._replies)

    def reply(self, site: str) -> Reply:
        """Its words. Raises KeyError where nothing has come."""
        return self._replies[site]

    def update(self, site: str) -> Stored:
        """Its update, on the disk."""
        return Stored(self, self._replies[site], "update")

    def extras(self, site: str) -> Stored:
        """What came beside it, on the disk."""
        return Stored(self, self._replies[site], "extras")

    def reject(self, site: str, reason: str = "") -> None:
        """Throw its tensors away, and remember why."""
        storage.write_json(str(self._path(site, _REJECTED)), {"site": site, "reason": reason})
        self._close(site)
        self._path(site, _REPLY).unlink(missing_ok=True)
        self._replies.pop(site, None)
        self._rejected[site] = reason

    def rejected(self) -> dict[str, str]:
        """Site → why, of those that were rejected in this round."""
        return dict(sorted(self._rejected.items()))

    def clear(self) -> None:
        """Forget the round."""
        self._open = None
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)
        self._replies.clear()
        self._rejected.clear()

    def handle(self, site: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a site's file; that of another is closed."""
        if self._open is None or self._open[0] != site:
            self._open = None
            place = self._path(site, _REPLY)
            whole = place.stat().st_size <= _WHOLE
            self._open = (site, load(place.read_bytes()) if whole else _Large(safe_open(place, framework="pt")))
        found: Mapping[str, torch.Tensor] = self._open[1]
        return found

    def _find(self, path: Path) -> None:
        """Take up what an earlier server kept; a damaged file is as if nothing had come."""
        try:
            with safe_open(path, framework="pt") as held:
                words = held.metadata() or {}
            reply = Reply.from_json(words.get("reply", ""))
            if _checksum(path) != int(words.get("checksum", "-1")):
                raise ValueError("it was not written to its end")  # one way out for all damage
        except (SafetensorError, ValueError, OSError):
            path.unlink(missing_ok=True)
            return
        if path == self._path(reply.site, _REPLY):
            self._replies[reply.site] = reply

    def _path(self, site: str, ending: str) -> Path:
        return self.folder / f"{file_name(site)}{ending}"

    def _close(self, site: str) -> None:
        if self._open is not None and self._open[0] == site:
            self._open = None


class _Large(Mapping[str, torch.Tensor]):
    """A file that is read tensor by tensor."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            found: torch.Tensor = self._file.get_tensor(name)
        except SafetensorError:
            raise KeyError(name) from None
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


class Stored(Mapping[str, torch.Tensor]):
    """Named tensors of one site that are read when they are asked for: an ``Update``, and a mapping."""

    def __init__(self, inbox: Inbox, reply: Reply, part: Literal["update", "extras"]) -> None:
        self.site, self.examples = reply.site, reply.examples
        self._inbox, self._part = inbox, f"{part}/"

    def names(self) -> Sequence[str]:
        """Of its tensors, sorted."""
        found = self._inbox.handle(self.site)
        return sorted(name.removeprefix(self._part) for name in found if name.startswith(self._part))

    def tensor(self, name: str) -> torch.Tensor:
        """One of them, float32. Raises KeyError."""
        return self[name].float()

    def load(self) -> Tensors:
        """All of them, in memory."""
        return dict(self)

    def __getitem__(self, name: str) -> torch.Tensor:
        """One of them, in the dtype in which it came."""
        return self._inbox.handle(self.site)[f"{self._part}{name}"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


def _checksum(path: Path) -> int:
    """Of a safetensors file's tensors."""
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        found = 0
        while piece := file.read(_PIECE):
            found = zlib.crc32(piece, found)
    return found


def file_name(site: str) -> str:
    """A site's name as that of a file: it cannot leave its folder, hide, or be too long.

    >>> file_name("berlin_1"), file_name("../x")
    ('berlin_1', '%2E%2E%2Fx')
    """
    safe = urllib.parse.quote(site, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(safe) <= _LONGEST:
        return safe or "~"
    digest = hashlib.blake2b(site.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{safe[:_LONGEST]}~{digest}"
