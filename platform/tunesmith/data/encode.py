"""Rows into features, batch by batch: the part of preparation that costs time, and that an engine may spread over a cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tunesmith.data import features, rows
from tunesmith.errors import DataError
from tunesmith.tasks.base import Features, Preprocessing, Task

BATCH = 1024
"""Rows encoded together: enough for a fast tokenizer to use its threads."""
MEDIA_BATCH = 32
"""The same where rows are images or sounds, whose decoded arrays are large."""


@dataclass(frozen=True)
class Encoded:
    """What became of one table of rows."""

    kept: np.ndarray
    """bool ``[rows]``: whether the row could be encoded."""
    features: pa.Table | None
    """One row for each one kept; None where there is none."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Row in the table, and why it could not be encoded."""


@dataclass(frozen=True)
class Encoder:
    """A task with its frozen preprocessing, as a function from rows to features."""

    task: Task
    preprocessing: Preprocessing

    def __call__(self, table: pa.Table) -> Encoded:
        """Encode the rows together; where the task refuses one of them, one by one, so that only that one is left out."""
        examples = rows.examples(table, self.task.columns)
        kept = np.ones(len(examples), dtype=bool)
        try:
            found = list(self.task.encode(examples, self.preprocessing))
            failures: list[tuple[int, str]] = []
        except DataError:
            found, failures = [], []
            for index, example in enumerate(examples):
                try:
                    found.extend(self.task.encode([example], self.preprocessing))
                except DataError as error:
                    kept[index] = False
                    failures.append((index, str(error)))
        self._same_count(found, int(kept.sum()))
        return Encoded(kept, features.to_table(found) if found else None, failures)

    def _same_count(self, found: list[Features], wanted: int) -> None:
        if len(found) != wanted:
            raise ValueError(f"{type(self.task).__name__}.encode gave {len(found)} features for {wanted} examples")


Engine = Callable[[Encoder, Iterable[pa.Table]], Iterator[Encoded]]
"""Encodes tables of rows and yields the results in the same order."""


def encode_here(encoder: Encoder, batches: Iterable[pa.Table]) -> Iterator[Encoded]:
    """The engine of one process. Images are decoded and resized on threads; tokenizers bring their own."""
    kinds = {column.kind for column in encoder.task.columns.values()}
    workers = min(8, os.cpu_count() or 1)
    if not kinds & {"image", "mask"} or kinds & {"text", "strings"} or workers < 2:
        yield from map(encoder, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Encoded]] = deque()
        for batch in batches:
            waiting.append(pool.submit(encoder, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batch_size(task: Task) -> int:
    """Rows encoded together."""
    return MEDIA_BATCH if any(column.kind in rows.MEDIA for column in task.columns.values()) else BATCH
