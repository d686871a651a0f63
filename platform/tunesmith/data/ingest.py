"""Reads every row once: finds its columns, checks it, and keeps the good ones where they can be read again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from tunesmith import storage
from tunesmith.data import columns, rows, tables
from tunesmith.data.domains import Domains, check_roles
from tunesmith.data.problems import Problem, Problems
from tunesmith.data.readers import Chunk
from tunesmith.data.sources import Source, domain_names
from tunesmith.errors import DataError
from tunesmith.tasks.base import Example, Task

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, rows done, and rows in all (0 where that is not known)."""

_TAKEN = 8192
"""Rows at a time where some of them are taken."""

_THREADS = 8
"""Images are decoded side by side while they are checked; more threads than this wait for the disk."""


@dataclass
class Ingested:
    """The good rows of what was given as one split, on disk; and what the split functions need of each."""

    name: str
    files: list[str]
    """What :data:`rows.FILE` counts in."""
    mapping: dict[str, str]
    """The column of each role, in the first file."""
    schema: pa.Schema
    """Columns of all rows together."""
    count: int
    hashes: np.ndarray
    """uint64 ``[count]``, see :func:`rows.content_hash`."""
    inputs: np.ndarray
    """uint64 ``[count]``: the hash of what the model is given, without the target; see :func:`rows.hashes`."""
    targets: np.ndarray
    """uint64 ``[count]``: the hash of the target."""
    untidy: int
    """Rows with a text that is not in composed Unicode, or has surplus white space."""
    strata: np.ndarray | None
    """int32 ``[count]`` class codes, or None where the task has no classes."""
    classes: list[str]
    """What the codes stand for."""
    seen: int
    """Rows read, bad ones included."""
    domains: Domains | None = None
    """The named data set of each row; None where data sets have no names."""
    _segments: list[Path] = field(default_factory=list)

    def tables(self, size: int) -> Iterator[pa.Table]:
        """All rows in order, ``size`` at a time, memory-mapped, with the columns of ``schema``."""
        for table in self._stored():
            for start in range(0, len(table), size):
                yield tables.fit(table.slice(start, size), self.schema)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        kind = self.schema.field(name).type
        schema = pa.schema([(name, kind)])
        parts = [tables.fit(table.select([name] if name in table.column_names else []), schema) for table in self._stored()]
        return pa.chunked_array([chunk for part in parts for chunk in part[name].chunks], kind)

    def take(self, indices: np.ndarray) -> pa.Table:
        """The rows ``indices``, sorted, in their order."""
        parts = [tables.fit(pa.table({}), self.schema)]
        start = 0
        for table in self.tables(_TAKEN):
            low, high = np.searchsorted(indices, (start, start + len(table)))
            if high > low:
                parts.append(table.take(pa.array(indices[low:high] - start)))
            start += len(table)
        return pa.concat_tables(parts[1:] or parts)

    def extended(self, other: Ingested, chosen: np.ndarray, folder: Path, domains: np.ndarray | None = None) -> Ingested:
        """These rows and, after them, the rows ``chosen`` (sorted) of another; ``folder`` takes a copy of those.

        ``domains`` are the codes that the chosen rows get among the domains of these, where these have any.
        """
        folder.mkdir(parents=True, exist_ok=True)
        moved = other.take(chosen)
        files = list(dict.fromkeys([*self.files, *other.files]))
        places = [files.index(other.files[place]) for place in moved[rows.FILE].to_pylist()]
        moved = moved.set_column(moved.column_names.index(rows.FILE), rows.FILE, pa.array(places, pa.int32()))
        moved = moved.drop_columns([rows.DOMAIN]) if other.domains is not None else moved
        joined = None
        if self.domains is not None and domains is not None:
            moved = moved.append_column(rows.DOMAIN, pa.array(domains, pa.int32()))
            joined = Domains(self.domains.names, np.concatenate([self.domains.codes, domains.astype(np.int32)]))
        with _Segments(folder) as writer:
            writer.write(moved)
        classes = list(dict.fromkeys([*self.classes, *other.classes]))
        strata = None
        if self.strata is not None and other.strata is not None:
            codes = np.array([classes.index(name) for name in other.classes], np.int32)
            strata = np.concatenate([self.strata, codes[other.strata[chosen]]])
        kinds = {f.name: [f.type] for f in self.schema}
        for f in other.schema:
            kinds.get(f.name, []).append(f.type)
        schema = pa.schema([(name, tables.common_type(found)) for name, found in kinds.items()])
        return replace(
            self,
            files=files,
            schema=schema,
            count=self.count + len(chosen),
            strata=strata,
            classes=classes,
            hashes=np.concatenate([self.hashes, other.hashes[chosen]]),
            inputs=np.concatenate([self.inputs, other.inputs[chosen]]),
            targets=np.concatenate([self.targets, other.targets[chosen]]),
            domains=joined,
            _segments=[*self._segments, *writer.paths],
        )

    def _stored(self) -> Iterator[pa.Table]:
        for segment in self._segments:
            with pa.memory_map(str(segment)) as stream:
                reader = pa.ipc.open_file(stream)
                for index in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(index)])


def ingest(
    name: str,
    sources: Sequence[Source],
    task: Task,
    said: Mapping[str, str],
    problems: Problems,
    folder: Path,
    progress: Progress,
    normalize: bool = False,
    labelled: bool = True,
) -> Ingested:
    """Read, map and check all rows of a split; bad ones go to ``problems``. ``normalize`` makes texts :func:`rows.tidy`.

    Where rows are not ``labelled``, the target's column stays one of the user's other columns, and may be missing.
    Raises :class:`DataError` for what concerns a whole file: no such column, nothing in it; or a domain: no row, other roles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mappings: dict[str, dict[str, str]] = {}
    names = domain_names(sources)
    roles: dict[str, set[str]] = {}
    seen = 0
    media = any(column.kind in rows.MEDIA for column in task.columns.values())
    with _Segments(folder) as writer, ThreadPoolExecutor(_THREADS) as pool:
        gathered = _Gathered(name, task, problems, writer, pool.map if media else map, normalize, names)
        for source in sources:
            for chunk in source.chunks():
                seen += len(chunk.table) + len(chunk.bad)
                for bad in chunk.bad:
                    problems.add(Problem(name, chunk.file, bad.row, bad.reason), {"raw": bad.raw})
                if len(chunk.table) == 0:
                    continue
                if chunk.file not in mappings:
                    where = chunk.file + (f" (domain {source.domain})" if source.domain else "")
                    there = chunk.table.column_names
                    here = {role: one for role, one in said.items() if labelled or role != task.target or one in there}
                    mappings[chunk.file] = columns.match(there, task, here, where, need_target=labelled)
                used = {role: one for role, one in mappings[chunk.file].items() if labelled or role != task.target}
                roles.setdefault(source.domain or "", set()).update(used)
                gathered.take(chunk, used, source.domain)
                progress("read", seen, 0)
    empty = next((domain for domain in names if domain not in roles), None)
    if seen == 0 or (empty is not None and not len(problems)):
        specs = ", ".join(dict.fromkeys(source.spec for source in sources if empty in (None, source.domain)))
        of = f"the domain {empty} ({specs})" if empty else specs
        raise DataError(f"data.{name}: {of} has no rows\n    → Give data with at least one row below the column names.")
    check_roles(name, roles)
    return gathered.ingested(next(iter(mappings.values()), {}), seen)


@dataclass
class _Gathered:
    """The rows read so far: the good ones are written, what the splits need of each is kept."""

    name: str
    task: Task
    problems: Problems
    writer: _Segments
    each: Callable[..., Any]
    normalize: bool
    domains: tuple[str, ...] = ()
    files: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    hashes: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    domain_codes: list[np.ndarray] = field(default_factory=list)
    untidy: int = 0

    def take(self, chunk: Chunk, mapping: Mapping[str, str], domain: str | None = None) -> None:
        """Check a chunk's rows, write the good ones, note the others as problems."""
        task, number = self.task, self.files.setdefault(chunk.file, len(self.files))
        table = rows.by_role(chunk.table, mapping, task.columns, storage.parent(chunk.file))
        examples = rows.examples(table, task.columns)
        reasons = list(self.each(partial(_check, task), examples))
        good = np.array([reason is None for reason in reasons])
        for index in np.flatnonzero(~good):
            problem = Problem(self.name, _file_of(chunk, examples[index], task), int(chunk.rows[index]), reasons[index])
            self.problems.add(problem, examples[index])
        kept = [example for example, reason in zip(examples, reasons, strict=True) if reason is None]
        found = list(self.each(partial(rows.hashes, roles=task.columns, target=task.target), kept))
        hashed = np.array([one[:2] for one in found], np.uint64).reshape(-1, 2)
        self.hashes.append(hashed)
        self.targets.append(np.fromiter((_target(task, example) for example in kept), np.uint64, len(kept)))
        self.codes.append(_codes(task, kept, self.classes))
        self.untidy += sum(one.untidy for one in found)
        table = table if good.all() else table.filter(good)
        table = rows.tidied(table, task.columns) if self.normalize else table
        own = {rows.ROW: chunk.rows[good], rows.FILE: np.full(len(kept), number, np.int32), rows.HASH: hashed[:, 0].copy()}
        if domain is not None:
            own[rows.DOMAIN] = np.full(len(kept), self.domains.index(domain), np.int32)
            self.domain_codes.append(own[rows.DOMAIN])
        for column, values in own.items():
            table = table.append_column(column, pa.array(values))
        self.writer.write(table)

    def ingested(self, mapping: dict[str, str], seen: int) -> Ingested:
        """All of it, once everything is read."""
        strata = np.concatenate(self.codes) if self.codes else np.zeros(0, np.int32)
        hashes = np.concatenate(self.hashes) if self.hashes else np.zeros((0, 2), np.uint64)
        domains = np.concatenate([np.zeros(0, np.int32), *self.domain_codes])
        return Ingested(
            name=self.name,
            files=list(self.files),
            mapping=mapping,
            schema=self.writer.schema(),
            count=len(strata),
            hashes=hashes[:, 0].copy(),
            inputs=hashes[:, 1].copy(),
            targets=np.concatenate(self.targets) if self.targets else np.zeros(0, np.uint64),
            untidy=self.untidy,
            strata=strata if len(strata) and (strata >= 0).all() else None,
            classes=list(self.classes),
            seen=seen,
            domains=Domains(self.domains, domains) if self.domains else None,
            _segments=self.writer.paths,
        )


def _target(task: Task, example: Example) -> int:
    """64 bits of the target: of the class where there is one, so that ``1`` and ``"1"`` are the same, else of the value."""
    return _hashed(task.stratum(example) or tables.as_text(example.get(task.target)) or "")


@lru_cache(maxsize=4096)
def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _check(task: Task, example: Example) -> str | None:
    return task.check(example)


def _file_of(chunk: Chunk, example: Example, task: Task) -> str:
    """The file that a problem is about: where rows are files of a folder, the file itself."""
    media = [example[r] for r, c in task.columns.items() if c.kind in rows.MEDIA and isinstance(example.get(r), str)]
    return str(media[0]) if media and chunk.is_folder else chunk.file


def _codes(task: Task, examples: Sequence[Example], classes: dict[str, int]) -> np.ndarray:
    """The class code of each example; -1 where it has none."""
    strata = (task.stratum(example) for example in examples)
    return np.fromiter(
        (-1 if stratum is None else classes.setdefault(stratum, len(classes)) for stratum in strata), np.int32, len(examples)
    )


class _Segments:
    """Arrow files of rows; a new one begins where the columns or their types change."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[Path] = []
        self._folder = folder
        self._schemas: list[pa.Schema] = []
        self._writer: tables.TableWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if self._writer is None or not table.schema.equals(self._schemas[-1]):
            if self._writer is not None:
                self._writer.close()
            self.paths.append(self._folder / f"{len(self.paths):05d}.arrow")
            self._schemas.append(table.schema)
            self._writer = tables.TableWriter(self.paths[-1])
        self._writer.write(table)

    def schema(self) -> pa.Schema:
        """The columns of all segments, each with the type that holds the values of every segment."""
        names = dict.fromkeys(name for schema in self._schemas for name in schema.names)
        domain = [(rows.DOMAIN, pa.int32())] if rows.DOMAIN in names else []
        return pa.schema(
            [(n, tables.common_type(s.field(n).type for s in self._schemas if n in s.names)) for n in names if not _own(n)]
            + [(rows.ROW, pa.int64()), (rows.FILE, pa.int32()), (rows.HASH, pa.uint64()), *domain]
        )


def _own(name: str) -> bool:
    return name in rows.OWN
