"""Prepared data: memory-mapped splits that every worker opens and nobody loads.

A folder, complete once it has its ``manifest.json``::

    manifest.json            what it is: splits, hashes, counts, the state, problems, durations
    train/rows.arrow         roles, the user's other columns, ids
    train/features.arrow     what the task stores of each example
    validation/… test/…
    quarantine.jsonl         rows that were set aside, each with its reason
"""

from __future__ import annotations

import getpass
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith import storage
from tunesmith.data import rows
from tunesmith.data.domains import Domains
from tunesmith.data.features import FeatureFile
from tunesmith.data.lock import lock
from tunesmith.errors import DataError
from tunesmith.tasks.base import Column, Features

MANIFEST = "manifest.json"
ROWS = "rows.arrow"
FEATURES = "features.arrow"
QUARANTINE = "quarantine.jsonl"

Indices = Sequence[int] | np.ndarray


class Split:
    """One split, opened by memory map: opening costs the same for a thousand examples and for a billion bytes of them."""

    def __init__(
        self, name: str, path: str, folder: Path, entry: Mapping[str, Any], columns: Mapping[str, str], kinds: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.path = path
        """Where the prepared data is that it belongs to: a local path or a URI."""
        self.hash: str = entry["hash"]
        """BLAKE2b-128 over the contents of its rows, in order."""
        self.source: list[str] = entry["source"]
        """The specs that it was made from."""
        self._files: list[str] = list(entry.get("files") or ())
        self._domains: tuple[str, ...] = tuple(entry.get("domains") or ())
        self.folder = folder
        """Where its files are on this machine."""
        self.columns = columns
        """The user's column of each role, in the first file that it was made from."""
        self._roles = {role: Column(kind=kind, description="") for role, kind in kinds.items()}
        self._features = FeatureFile(folder / FEATURES)

    def __len__(self) -> int:
        return len(self._features)

    @property
    def lengths(self) -> np.ndarray:
        """What each example costs in a batch, int32 ``[n]``."""
        return self._features.lengths

    @property
    def counts(self) -> np.ndarray:
        """Units of loss of each example, int32 ``[n]``."""
        return self._features.counts

    @cached_property
    def ids(self) -> pa.Array:
        """A name for each example, ``[n]``: from its contents, so that it is the same in every run over the same rows."""
        column = self._table[rows.ID]
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    @cached_property
    def domains(self) -> Domains | None:
        """The named data set of each example; None where data sets have no names."""
        if not self._domains:
            return None
        return Domains(self._domains, self._table[rows.DOMAIN].to_numpy().astype(np.int32))

    def features(self, indices: Indices) -> list[Features]:
        """What the task stored of these examples, in this order. The arrays are read-only views of the file."""
        return self._features.get(indices)

    def rows(self, indices: Indices | None = None) -> pa.Table:
        """The roles and all other scalar columns of the data; a role's column is there under the user's name too.

        An image that is a file is its path. Without ``indices`` the whole split, memory-mapped.
        """
        table = self._table.drop_columns(rows.hidden(self._table.column_names))
        for role, name in self.columns.items():
            if name not in table.column_names and role in table.column_names:
                table = table.append_column(name, table[role])
        return table if indices is None else table.take(pa.array(np.asarray(indices, np.int64)))

    def place(self, index: int) -> str:
        """Where an example came from, for messages: the file that it is, or the file and row that it stands in."""
        table = self._table.slice(index, 1)
        for role, column in self._roles.items():
            if column.kind in ("image", "audio") and role in table.column_names and isinstance(table[role][0].as_py(), str):
                return str(table[role][0].as_py())
        file = table[rows.FILE][0].as_py() if rows.FILE in table.column_names else None
        if file is None or file >= len(self._files):
            return f"id {self.ids[index].as_py()}"
        return f"{self._files[file]}, row {table[rows.ROW][0].as_py()}"

    def example(self, index: int) -> dict[str, Any]:
        """One example by role."""
        return self.examples([index])[0]

    def examples(self, indices: Indices | None = None) -> list[dict[str, Any]]:
        """Examples by role, as the task takes them; an image is its path, or its bytes where the data holds them."""
        table = self._table
        if indices is not None:
            roles = [name for name in table.column_names if name.removesuffix(":bytes") in self._roles]
            table = table.select(roles).take(pa.array(np.asarray(indices, np.int64)))
        return rows.examples(table, self._roles)

    @cached_property
    def _table(self) -> pa.Table:
        return pa.ipc.open_file(pa.memory_map(str(self.folder / ROWS))).read_all()

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} examples)"


class PreparedData:
    """A folder of prepared data, opened. Give workers its ``path``; they :meth:`open` it themselves."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path = path
        """Where it was opened: a local path or a URI."""
        self.folder = folder
        """Where it is on this machine."""
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.state: dict[str, Any] = self.manifest["state"]
        """The task's frozen preprocessing state."""
        self.splits: dict[str, Split] = {
            name: Split(name, path, folder / name, entry, self.manifest["columns"], self.manifest["roles"])
            for name, entry in self.manifest["splits"].items()
        }

    @classmethod
    def open(cls, path: str) -> PreparedData:
        """Open prepared data by memory map. Data at a URI is copied to this machine once, whoever asks for it here.

        Raises :class:`DataError` where there is none.
        """
        folder = storage.local_path(path) if storage.is_local(path) else _fetched(path)
        if not (folder / MANIFEST).is_file():
            raise DataError(
                f"{path} holds no prepared data (it has no {MANIFEST})\n    → Run the command that prepares it again."
            )
        return cls(path, folder)

    @property
    def quarantine(self) -> Path | None:
        """The file with the rows that were set aside, or None."""
        file = self.folder / QUARANTINE
        return file if file.exists() else None

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (PreparedData.open, (self.path,))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(split)}" for name, split in self.splits.items())
        return f"PreparedData({self.path!r}, {sizes})"


def _fetched(uri: str) -> Path:
    """The local copy of remote prepared data, in the machine's temporary folder; made by the first who asks."""
    folder = node_cache() / storage.name(uri)
    with lock(folder.with_name(folder.name + ".lock")):
        if not (folder / MANIFEST).is_file():
            try:
                storage.download(uri, folder)
            except FileNotFoundError as error:
                raise DataError(f"{uri} does not exist\n    → Run the command that prepares it again.") from error
    return folder


def node_cache() -> Path:
    """The folder for prepared data in this machine's temporary space, one for each user."""
    return Path(tempfile.gettempdir(), f"tunesmith-{getpass.getuser()}", "prepared")
