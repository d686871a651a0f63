"""Answers of a target for the rows of files, kept in a journal as they come in, and written as one Parquet file in the end."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith import storage
from tunesmith.data import columns, rows, tables
from tunesmith.data.readers import ROWS, Chunk
from tunesmith.data.sources import Source, resolve
from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.journal import Journal
from tunesmith.evaluation.targets import Reply, Target
from tunesmith.tasks.base import Example, Task
from tunesmith.tasks.labels import words
from tunesmith_serving import plain

FORMAT = 1
JOB = b"tunesmith.predict"
"""The key in the Parquet file's metadata under which stands what was asked, and whom."""
OWN = ("id", "file", "row")
PROBLEM = "problem"

_IN_A_RECIPE = re.compile(r"data\.columns: \{(\w+): ([^}]*)\}")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What became of all rows."""

    path: Path
    rows: int
    answered: int
    """Rows with an answer, those of earlier runs included."""
    resumed: int
    """Rows whose answer was there already."""
    bad: int
    problems: tuple[str, ...]
    """The first of the rows without an answer: file, row, reason."""


@dataclass
class _Rows:
    """Rows of one chunk as they are asked and written, in the file's order."""

    file: str
    numbers: list[int]
    table: pa.Table
    """The user's scalar columns."""
    examples: list[Example | None]
    """None where a row could not be read."""
    reasons: list[str | None] = field(default_factory=list)


def answer(
    target: Target, data: str, out: Path, said: Mapping[str, str], progress: Progress, *, overwrite: bool = False
) -> Outcome:
    """Ask the target about every row of ``data``, and write ``out``. What an earlier run has answered is not asked again.

    Raises:
        DataError: the data is not there, empty, or lacks a column that the task needs.
        UserError: ``out`` is there and of something else, or being written; or another version than the target's has answered.
        ServiceError: the service refuses; run the same command again to go on.
    """
    sources = _sources(data)
    job = {"format": FORMAT, "target": _identity(target), "data": _digest(sources), "columns": dict(said)}
    if out.exists() and not overwrite:
        if _job_of(out) == job:
            return _finished(out)
        raise UserError(f"{out} is there already, and of something else\n    → Name another --out, or write --overwrite.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with Journal(out.with_name(out.name + ".part.jsonl"), job) as journal:
        resumed, journal.version = len(journal), target.version
        reader = _Reader(sources, target.task, said)
        total = _ask(target, reader, journal, progress)
        outcome = _write(out, reader, journal, _labels(target), job, resumed)
        journal.remove()
    assert outcome.rows >= total
    return outcome


def _sources(data: str) -> tuple[Source, ...]:
    try:
        return resolve(data, "auto", str(Path.cwd()), "test")["test"]
    except DataError as error:  # it speaks of a recipe's key, and there is no recipe here
        raise DataError(
            str(error).replace("data.test: ", "", 1).replace("the recipe's folder", "the working directory")
        ) from None


def _identity(target: Target) -> dict[str, Any]:
    """What must be the same for answers to belong together; not where the target is."""
    labels = hashlib.blake2b("\0".join(_labels(target)).encode(), digest_size=8).hexdigest()
    return {"name": target.name, "version": target.version, "task": target.task.name, "labels": labels}


def _labels(target: Target) -> tuple[str, ...]:
    return tuple(target.state.get("labels") or ())


def _digest(sources: Sequence[Source]) -> str:
    return hashlib.blake2b("".join(one.content_hash() for one in sources).encode(), digest_size=16).hexdigest()


def _ask(target: Target, reader: _Reader, journal: Journal, progress: Progress) -> int:
    """Ask about every row that the journal does not have; how many rows there are that could be read."""
    asked: dict[int, tuple[int, str]] = {}
    seen = 0

    def open_examples() -> Iterator[Example]:
        nonlocal seen
        place = 0
        for part in reader:
            for example in part.examples:
                if example is None:
                    continue
                index, seen = seen, seen + 1
                if index in journal:
                    continue
                given, content, why = reader.loaded(example)
                if why is not None:
                    journal.add(index, content, Reply(index, problem=why))
                    continue
                asked[place] = (index, content)
                place += 1
                yield given

    labels = _labels(target)
    progress(len(journal), 0)
    for reply in target.replies(open_examples()):
        index, content = asked.pop(reply.index)
        journal.add(index, content, _for_people(reply, labels))
        progress(len(journal), 0)
    return seen


def _for_people(reply: Reply, labels: Sequence[str]) -> Reply:
    """The reply with its scores by label; seconds are of no use in a file of answers."""
    answer = None if reply.answer is None else plain.spoken(reply.answer, labels)
    return replace(reply, answer=answer, seconds=None)


class _Reader:
    """The rows of all files, the same each time they are read."""

    def __init__(self, sources: Sequence[Source], task: Task, said: Mapping[str, str]) -> None:
        self._sources, self._task, self._said = sources, task, said
        self._mappings: dict[str, dict[str, str]] = {}

    def __iter__(self) -> Iterator[_Rows]:
        empty = True
        for source in self._sources:
            for chunk in source.chunks():
                if len(chunk.table) or chunk.bad:
                    empty = False
                    yield self._rows(chunk)
        if empty:
            raise DataError(f"{self._sources[0].spec} has no rows\n    → Give data with at least one row.")

    def loaded(self, example: Example) -> tuple[dict[str, Any], str, str | None]:
        """What is asked of an example (media as bytes, words as lists), 64 bits of its content, and why it cannot be asked."""
        task = self._task
        given: dict[str, Any] = {}
        why = None
        for role, value in example.items():
            kind = task.columns[role].kind
            if kind in rows.MEDIA and isinstance(value, str):
                try:
                    value = _file(value)
                except OSError as error:
                    why = f"{role} cannot be read: {value} ({error.strerror or error})"
            elif kind == "text" and value is not None:
                value = tables.as_text(value)
            elif kind == "strings" and value is not None:
                value = words(value)
            if value is None and role != task.target and task.columns[role].required:
                why = why or f"{role} is missing"
            given[role] = value
        content = f"{rows.content_hash({**example, **{r: v for r, v in given.items() if r != task.target}}, task.columns):016x}"
        return {role: value for role, value in given.items() if role != task.target}, content, why

    def _rows(self, chunk: Chunk) -> _Rows:
        table, task = chunk.table, self._task
        found: list[Example | None] = []
        kept = pa.table({})
        if len(table):
            if chunk.file not in self._mappings:
                self._mappings[chunk.file] = self._match(table.column_names, chunk.file)
            mapped = rows.by_role(table, self._mappings[chunk.file], task.columns, storage.parent(chunk.file))
            found = list(rows.examples(mapped, task.columns))
            kept = table.select([name for name in table.column_names if tables.is_scalar(table[name].type)])
        numbers = [int(one) for one in chunk.rows]
        if not chunk.bad:
            return _Rows(chunk.file, numbers, kept, found, [None] * len(found))
        numbers += [one.row for one in chunk.bad]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        nothing = pa.table({one.name: pa.nulls(len(chunk.bad), one.type) for one in kept.schema})
        padded = pa.concat_tables([kept, nothing]).take(pa.array(order)) if len(kept.schema) else kept
        found = [*found, *[None] * len(chunk.bad)]
        why = [*[None] * len(chunk.table), *(one.reason for one in chunk.bad)]
        return _Rows(chunk.file, [numbers[k] for k in order], padded, [found[k] for k in order], [why[k] for k in order])

    def _match(self, there: Sequence[str], file: str) -> dict[str, str]:
        """Raises :class:`DataError`, in the words of ``--column``."""
        try:
            return columns.match(there, self._task, self._said, file, need_target=False)
        except DataError as error:
            told = _IN_A_RECIPE.sub(r"--column \1=\2", str(error))
            raise DataError(told.replace("data.columns.", "--column ").replace("data.columns:", "--column:")) from None


def _file(place: str) -> bytes:
    return Path(storage.local_path(place)).read_bytes() if storage.is_local(place) else storage.read_bytes(place)


def _write(
    out: Path, reader: Iterable[_Rows], journal: Journal, labels: Sequence[str], job: Mapping[str, Any], resumed: int
) -> Outcome:
    """Rows and answers as one file, which is there whole or not at all."""
    answers = _answer_types(journal, labels)
    own = {*OWN, PROBLEM, *answers}
    given = _given_types(reader)
    names = _given_names(given, own)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("file", pa.string()),
            ("row", pa.int64()),
            *((names[name], kind) for name, kind in given.items()),
            *answers.items(),
            (PROBLEM, pa.string()),
        ]
    ).with_metadata({JOB: json.dumps(dict(job)).encode()})
    counts: Counter[str] = Counter()
    index = total = bad = 0
    problems: list[str] = []
    with storage.writing(out) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for part in reader:
            lines: list[dict[str, Any]] = []
            for number, example, why in zip(part.numbers, part.examples, part.reasons, strict=True):
                line: dict[str, Any] = {"file": part.file, "row": number, PROBLEM: why}
                if example is not None:
                    kept = journal.get(index)
                    counts[kept["h"]] += 1
                    ordinal = counts[kept["h"]]
                    line["id"] = kept["h"] if ordinal == 1 else f"{kept['h']}-{ordinal}"
                    line[PROBLEM] = kept.get("p")
                    line |= {_answer_name(name): value for name, value in (kept.get("a") or {}).items()}
                    index += 1
                if line[PROBLEM] is not None:
                    bad += 1
                    problems.append(f"{part.file}, row {number}: {line[PROBLEM]}") if len(problems) < 10 else None
                lines.append(line)
            total += len(lines)
            writer.write_table(_table(lines, part.table, schema, own, names))
    return Outcome(out, total, total - bad, resumed, bad, tuple(problems))


def _table(
    lines: Sequence[Mapping[str, Any]], given: pa.Table, schema: pa.Schema, own: Collection[str], names: Mapping[str, str]
) -> pa.Table:
    """The rows with the columns of the schema: ours from the lines, the user's from their table."""
    renamed = {names[name]: given[name] for name in given.column_names}
    found: list[Any] = []
    for one in schema:
        if one.name in own:
            values = [line.get(one.name) for line in lines]
            found.append(pa.array(map(tables.as_text, values) if one.type == pa.string() else values, one.type))
        elif one.name in renamed:
            found.append(tables.fit(pa.table({one.name: renamed[one.name]}), pa.schema([one]))[one.name])
        else:
            found.append(pa.nulls(len(lines), one.type))
    return pa.table(found, schema=schema)


def _given_types(reader: Iterable[_Rows]) -> dict[str, pa.DataType]:
    """The user's columns, each with the type that holds its values in every file."""
    kinds: dict[str, list[pa.DataType]] = {}
    for part in reader:
        for one in part.table.schema:
            kinds.setdefault(one.name, []).append(one.type)
    common = {name: tables.common_type(found) for name, found in kinds.items()}
    return {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in common.items()}


def _answer_types(journal: Journal, labels: Sequence[str]) -> dict[str, pa.DataType]:
    """What the answers hold, by name; scores by label are a struct of the labels."""
    names: dict[str, list[pa.DataType]] = {}
    for start in range(0, len(journal), ROWS):
        kept = (journal.get(index).get("a") for index in range(start, min(start + ROWS, len(journal))))
        block = tables.from_rows([_flat(one) for one in kept if one is not None], {})
        for one in block.schema:
            names.setdefault(one.name, []).append(one.type)
    scores = pa.struct([(label, pa.float64()) for label in labels])
    return {
        name: scores if all(map(pa.types.is_null, kinds)) and name == "scores" else tables.common_type(kinds)
        for name, kinds in names.items()
    }


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without the scores by label, whose type is known."""
    return {_answer_name(name): None if isinstance(value, dict) else value for name, value in said.items()}


def _answer_name(name: str) -> str:
    return f"answer.{name}" if name in (*OWN, PROBLEM) else name


def _given_names(there: Collection[str], own: Collection[str]) -> dict[str, str]:
    """What each column of the data is called: as it is, with ``data.`` before it where we have a column of that name.

    >>> _given_names(["label", "data.label", "text"], own=["label"])
    {'label': 'data.data.label', 'data.label': 'data.label', 'text': 'text'}
    """
    taken, found = {*own, *there}, {}
    for name in there:
        found[name] = name
        while name in own and found[name] in taken:
            found[name] = f"data.{found[name]}"
        taken.add(found[name])
    return found


def _job_of(out: Path) -> Any:
    try:
        return json.loads((pq.read_schema(out).metadata or {}).get(JOB, b"null"))
    except (OSError, ValueError):
        return None


def _finished(out: Path) -> Outcome:
    """What stands in a file that is complete."""
    table = pq.read_table(out, columns=["file", "row", PROBLEM])
    bad = [one for one in table.to_pylist() if one[PROBLEM] is not None]
    told = tuple(f"{one['file']}, row {one['row']}: {one[PROBLEM]}" for one in bad[:10])
    answered = len(table) - len(bad)
    return Outcome(out, len(table), answered, len(table), len(bad), told)
