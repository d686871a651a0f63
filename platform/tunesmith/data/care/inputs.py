"""All rows of the given splits in one numbering, and what of them is compared: texts joined, or the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data import rows
from tunesmith.data.ingest import Ingested
from tunesmith.data.prepared import ROWS, Split
from tunesmith.tasks.base import Task

EXCERPT = 120
"""Characters of a text that a finding shows."""

_BLOCK = 4096


class Inputs:
    """The rows of all given splits, numbered through in the order of the splits."""

    def __init__(self, task: Task, given: Mapping[str, Ingested]) -> None:
        self.given = dict(given)
        counts = [data.count for data in given.values()]
        self.starts = dict(zip(given, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        self.count = sum(counts)
        self.keys = np.concatenate([data.inputs for data in given.values()])
        """uint64 ``[count]``: equal ones have the same input."""
        self.targets = np.concatenate([data.targets for data in given.values()])
        """uint64 ``[count]``: equal ones have the same target."""
        self._roles = {role: column for role, column in task.columns.items() if role != task.target}
        self._target = task.target

    @property
    def kind(self) -> str | None:
        """``text`` or ``image`` where the whole input is that; None for what can be compared only exactly."""
        kinds = {column.kind for column in self._roles.values()}
        if kinds and kinds <= {"text", "strings"}:
            return "text"
        return "image" if kinds == {"image"} and len(self._roles) == 1 else None

    def span(self, name: str) -> slice:
        """Where the rows of a split are in the numbering."""
        return slice(self.starts[name], self.starts[name] + self.given[name].count)

    def split_of(self, row: int) -> str:
        """The split that a row was given in."""
        return next(name for name in reversed(self.starts) if row >= self.starts[name])

    def texts(self, wanted: np.ndarray) -> Iterator[list[str]]:
        """What is compared of the rows ``wanted`` (sorted), some at a time: all texts of a row, joined."""
        for examples in self._examples(wanted):
            yield [self._text(example) for example in examples]

    def images(self, wanted: np.ndarray) -> Iterator[list[Any]]:
        """The images of the rows ``wanted`` (sorted), some at a time."""
        (role,) = self._roles
        for examples in self._examples(wanted):
            yield [example[role] for example in examples]

    def cards(self, wanted: np.ndarray) -> dict[int, dict[str, Any]]:
        """Where each of some rows stands and what it says, for messages and the report."""
        found: dict[int, dict[str, Any]] = {}
        wanted = np.unique(wanted)
        for name, data in self.given.items():
            span = self.span(name)
            chosen = wanted[(wanted >= span.start) & (wanted < span.stop)]
            if not len(chosen):
                continue
            table = data.take(chosen - span.start)
            places = zip(chosen.tolist(), table[rows.FILE].to_pylist(), table[rows.ROW].to_pylist(), strict=True)
            examples = rows.examples(table, {**self._roles, **self._target_role(table)})
            for (row, file, line), example in zip(places, examples, strict=True):
                card = {"split": name, "file": data.files[file], "row": line, "input": self._excerpt(example)}
                found[row] = {**card, "target": _short(rows.comparable(example.get(self._target), "json"))}
                if data.domains is not None:
                    found[row]["domain"] = data.domains.names[data.domains.codes[row - span.start]]
        return found

    def _target_role(self, table: pa.Table) -> dict[str, Any]:
        from tunesmith.tasks.base import Column

        return {self._target: Column("json", "")} if self._target in table.column_names else {}

    def _examples(self, wanted: np.ndarray) -> Iterator[list[dict[str, Any]]]:
        for name, data in self.given.items():
            span = self.span(name)
            low, high = np.searchsorted(wanted, (span.start, span.stop))
            local = wanted[low:high] - span.start
            start = done = 0
            for table in data.tables(1024) if len(local) else ():
                end = int(np.searchsorted(local, start + len(table)))
                if end > done:
                    some = local[done:end] - start
                    yield rows.examples(table if len(some) == len(table) else table.take(pa.array(some)), self._roles)
                start, done = start + len(table), end

    def _text(self, example: Mapping[str, Any]) -> str:
        values = ((example.get(role), column.kind) for role, column in self._roles.items())
        return " ".join(rows.comparable(value, kind) for value, kind in values if value is not None)

    def _excerpt(self, example: Mapping[str, Any]) -> str:
        """A text's beginning, or the place of a file."""
        shown = []
        for role, column in self._roles.items():
            value = example.get(role)
            if value is not None:
                shown.append("" if isinstance(value, bytes) else rows.comparable(value, column.kind))
        return _short(" / ".join(one for one in shown if one))


def _short(text: str) -> str:
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def of_split(split: Split, task: Task) -> Ingested:
    """A prepared split as rows whose inputs can be compared."""
    blocks = (split.examples(np.arange(start, min(start + _BLOCK, len(split)))) for start in range(0, len(split), _BLOCK))
    hashed = [rows.hashes(example, task.columns, task.target).inputs for block in blocks for example in block]
    file, nothing = split.folder / ROWS, np.zeros(len(split), np.uint64)
    with pa.memory_map(str(file)) as stream:
        schema = pa.ipc.open_file(stream).schema
    return Ingested(
        split.name,
        [],
        {},
        schema,
        len(split),
        nothing,
        np.array(hashed, np.uint64),
        nothing,
        0,
        None,
        [],
        len(split),
        None,
        [file],
    )
