"""Rows as they are kept: the task's roles, the user's other columns, where each row came from, and what it says in 64 bits.

A table of rows has one column for each role, ``ROLE:bytes`` where an image or a sound came inside the data rather than as a
file, every other scalar column of the user under its own name, and the columns :data:`ROW`, :data:`FILE`,
:data:`HASH` and, where data sets have names, :data:`DOMAIN`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.types as types

from tunesmith import storage
from tunesmith.data import tables
from tunesmith.tasks.base import Column, Example
from tunesmith.tasks.labels import words

ROW = "__row"
"""Line or row in the file, from 1."""
FILE = "__file"
"""Which file: an index into the list in the manifest."""
HASH = "__hash"
"""64 bits of the roles' contents."""
DOMAIN = "__domain"
"""Which named data set: an index into the split's list in the manifest; only where data sets have names."""
ID = "__id"
"""The hash in hexadecimal, and ``-2`` … for further rows of the same content."""
OWN = (ROW, FILE, HASH, ID, DOMAIN)

MEDIA = frozenset({"image", "audio", "mask"})
"""Kinds whose values are files, or their bytes."""

_BYTES = ":bytes"


def by_role(table: pa.Table, mapping: Mapping[str, str], roles: Mapping[str, Column], folder: str) -> pa.Table:
    """The user's table with roles in place of column names; what is not scalar and has no role is left out.

    Paths of media are made absolute from ``folder``, that of the file in which they stand.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for role, name in mapping.items():
        values = table[name]
        if roles[role].kind in MEDIA:
            columns.update(_media(role, values, folder))
        else:
            columns[role] = values
    for name in table.column_names:
        if name not in mapping.values() and tables.is_scalar(table[name].type):
            columns[kept_name(name, roles)] = table[name]
    return pa.table(columns) if columns else table.select([])


def kept_name(name: str, roles: Mapping[str, Column]) -> str:
    """What a column without a role is called among the rows: its own name, with ``_`` where that is a role's or ours."""
    while name in roles or name in OWN or name.endswith(_BYTES):
        name += "_"
    return name


def examples(table: pa.Table, roles: Mapping[str, Column]) -> list[dict[str, Any]]:
    """The rows as examples by role. A medium is its bytes where the data holds them, else its path or URI."""
    columns: dict[str, list[Any]] = {}
    for role, column in roles.items():
        if role not in table.column_names:
            continue
        values = table[role].to_pylist()
        if column.kind in MEDIA:
            inside = table[role + _BYTES].to_pylist() if role + _BYTES in table.column_names else [None] * len(values)
            values = [one if one is not None else path for one, path in zip(inside, values, strict=True)]
        columns[role] = values
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def content_hash(example: Example, roles: Mapping[str, Column]) -> int:
    """64 bits of BLAKE2b over the roles' values: the same for ``1`` and ``"1"``, and for a file and its bytes."""
    return hashes(example, roles, "").content


class Hashes(NamedTuple):
    """What a row says, in numbers of 64 bits."""

    content: int
    """Of all roles."""
    inputs: int
    """Of all roles but the target, texts as :func:`comparable` has them."""
    untidy: bool
    """Whether :func:`tidy` would change a text of it."""


def hashes(example: Example, roles: Mapping[str, Column], target: str) -> Hashes:
    """BLAKE2b over the roles' values, and over those of the inputs alone as they are compared. A file is read once."""
    whole, inputs = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    untidy = False
    for role in sorted(example):
        value = example[role]
        if value is None:
            continue
        kind = roles[role].kind
        head = f"\x1e{role}\x1f".encode()
        content = _content(value, kind)
        whole.update(head)
        whole.update(content)
        if role != target:
            inputs.update(head)
            if kind in ("text", "strings"):
                plain = comparable(value, kind)
                untidy = untidy or (isinstance(value, str) and plain != value)
                content = plain.encode("utf-8", "surrogatepass")
            inputs.update(content)
    return Hashes(_number(whole), _number(inputs), untidy)


def tidy(text: str) -> str:
    """Unicode's composed form, every run of white space as one space, none at the ends.

    >>> tidy("  two   words ")
    'two words'
    """
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def comparable(value: Any, kind: str) -> str:
    """A value as the text by which it is compared: words of a list joined, white space and Unicode made the same."""
    if kind == "strings":
        value = " ".join(words(value) or [])
    return tidy(value if isinstance(value, str) else tables.as_text(value) or "")


def tidied(table: pa.Table, roles: Mapping[str, Column]) -> pa.Table:
    """The table with all texts of its roles made :func:`tidy`."""
    for index, name in enumerate(table.column_names):
        if name in roles and roles[name].kind == "text" and types.is_string(table[name].type):
            values = [value if value is None else tidy(value) for value in table[name].to_pylist()]
            table = table.set_column(index, name, pa.array(values, pa.string()))
    return table


def _content(value: Any, kind: str) -> bytes:
    """A value as bytes."""
    if isinstance(value, str) and kind in MEDIA:
        return _file_bytes(value)
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else tables.as_text(value) or ""
    return text.encode("utf-8", "surrogatepass")


def _number(digest: Any) -> int:
    return int.from_bytes(digest.digest(), "little")


def hidden(names: Sequence[str]) -> list[str]:
    """The columns of a table of rows that :meth:`Split.rows` does not show: our own, and bytes."""
    return [name for name in names if name in OWN or name.endswith(_BYTES)]


def _file_bytes(place: str) -> bytes:
    """A file's content, or its name where it cannot be read (then the task has already said so)."""
    try:
        return Path(storage.local_path(place)).read_bytes() if storage.is_local(place) else storage.read_bytes(place)
    except OSError:
        return place.encode("utf-8", "surrogateescape")


def _media(role: str, values: pa.ChunkedArray, folder: str) -> dict[str, pa.ChunkedArray]:
    """Path and bytes of a medium: from paths, from bytes, or from the ``{bytes, path}`` of ``datasets``."""
    if types.is_struct(values.type):
        fields = {field.name for field in values.type}
        rows = values.to_pylist()
        inside = [row.get("bytes") if row else None for row in rows] if "bytes" in fields else [None] * len(rows)
        paths = [row.get("path") if row else None for row in rows] if "path" in fields else [None] * len(rows)
    elif types.is_binary(values.type):
        inside, paths = values.to_pylist(), [None] * len(values)
    else:
        inside, paths = [None] * len(values), [tables.as_text(value) for value in values.to_pylist()]
    places = [
        path if path is None or within is not None else _absolute(path, folder)
        for path, within in zip(paths, inside, strict=True)
    ]
    columns = {role: pa.chunked_array([pa.array(places, pa.string())])}
    if any(within is not None for within in inside):
        columns[role + _BYTES] = pa.chunked_array([pa.array(inside, pa.binary())])
    return columns


def _absolute(path: str, folder: str) -> str:
    """A path as it stands beside the file that names it."""
    if storage.scheme(path) or path.startswith("/") or not folder:
        return path
    return storage.join(folder, path)
