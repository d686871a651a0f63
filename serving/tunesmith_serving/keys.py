"""API keys: made once, shown once, kept only as hashes in a file that nobody else may read.

A key is ``tsk_`` and 256 random bits, so that a plain SHA-256 of it cannot be searched; a slow hash would only slow every
request down. Keys are compared with all entries in constant time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.errors import UserError, nearest

PREFIX = "tsk_"
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
RECHECK = 0.5
"""Seconds after which a changed file is noticed: a revoked key lives no longer than that."""


@dataclass(frozen=True)
class Key:
    """One key, as it is kept: its name, the hash of it, and what it may ask."""

    name: str
    hash: str
    """SHA-256 of the whole key, hex."""
    models: tuple[str, ...] | None
    """The models that it may ask; None is all."""
    created: str
    """When it was made, ISO 8601 in UTC."""

    def may(self, model: str) -> bool:
        """Whether the key may ask this model."""
        return self.models is None or model in self.models


class KeyFile:
    """The keys of a service, in a JSON file of mode 600."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._keys: list[Key] = []
        self._stamp: tuple[int, int, int] | None = None
        self._checked = -float("inf")
        self._wrong: str | None = None
        """Why the file could not be read when it was last looked at."""

    def add(self, name: str, models: Sequence[str] | None = None) -> str:
        """Make a key and give it: the only time that it can be seen. Raises :class:`UserError` where the name is taken."""
        if not NAME.match(name):
            raise UserError(f"{name!r} is no name for a key.\n    → Use letters, digits, dots, dashes and underscores.")
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._changing() as keys:
            if any(key.name == name for key in keys):
                raise UserError(
                    f"there is a key {name!r} already.\n"
                    f"    → Choose another name, or revoke it: `tunesmith serve keys revoke {name}`."
                )
            created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            keys.append(Key(name, _hash(secret), tuple(models) if models is not None else None, created))
        return secret

    def revoke(self, name: str) -> None:
        """Forget a key. Raises :class:`UserError` where there is none of that name."""
        with self._changing() as keys:
            if not any(key.name == name for key in keys):
                near = nearest(name, [key.name for key in keys])
                hint = f"Did you mean {near}?" if near else "`tunesmith serve keys list` names those there are."
                raise UserError(f"there is no key {name!r}.\n    → {hint}")
            keys[:] = [key for key in keys if key.name != name]

    def all(self) -> list[Key]:
        """The keys as they are now. Raises :class:`UserError` where the file is damaged or open to others."""
        self._load()
        return list(self._keys)

    def find(self, secret: str) -> Key | None:
        """The key that this is, or None. Every entry is compared, each in constant time.

        Raises :class:`UserError` for as long as the file is damaged or open to others: a good key is not a wrong one then.
        """
        if time.monotonic() - self._checked > RECHECK:
            self._load()
        if self._wrong is not None:
            raise UserError(self._wrong)
        given, found = _hash(secret), None
        for key in self._keys:
            if hmac.compare_digest(given, key.hash):
                found = key
        return found

    def _load(self) -> None:
        self._checked = time.monotonic()
        try:
            self._read()
        except UserError as error:
            self._wrong = str(error)
            raise
        self._wrong = None

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
                if stamp == self._stamp:
                    return
                self._keys = []  # where the new file is bad, no key is good
                self._stamp = None
                if about.st_mode & 0o077:
                    raise UserError(f"{self.path}: others than its owner may open it.\n    → chmod 600 {self.path}")
                self._keys = _parsed(file.read(), self.path)
                self._stamp = stamp
        except FileNotFoundError:
            self._keys, self._stamp = [], None
        except OSError as error:
            self._keys, self._stamp = [], None
            raise UserError(f"{self.path}: the keys cannot be read: {error.strerror}") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, to be changed in place; written back whole, one process at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._load()
                keys = list(self._keys)
                yield keys
                _write(self.path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: the keys cannot be written: {error.strerror}") from error
        self._load()


def default_place() -> Path:
    """``$XDG_CONFIG_HOME/tunesmith/serve-keys.json``, by default in ``~/.config``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "tunesmith" / "serve-keys.json"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _parsed(text: bytes, path: Path) -> list[Key]:
    try:
        return [
            Key(one["name"], one["hash"], tuple(one["models"]) if one["models"] is not None else None, one["created"])
            for one in json.loads(text)["keys"]
        ]
    except (ValueError, KeyError, TypeError) as error:  # of them JSON that is none, and text that is no UTF-8
        raise UserError(f"{path} is damaged: {error}\n    → Remove it, and make the keys anew.") from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by the owner alone from its first byte."""
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    passing.unlink(missing_ok=True)
    with os.fdopen(os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    passing.replace(path)
