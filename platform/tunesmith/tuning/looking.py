"""What can be seen of data before anything is trained: which task it is of, its columns, classes, sizes and lengths."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data import columns
from tunesmith.data.counting import count_rows
from tunesmith.data.sources import resolve
from tunesmith.errors import DataError, UserError
from tunesmith.recipe import Recipe
from tunesmith.recipe.task_names import KNOWN
from tunesmith.tasks import labels, load_task
from tunesmith.tasks.base import Outlines
from tunesmith.tuning.pace import Size, size_of

LOOKED_AT = 20_000
"""Rows that are looked at, at most."""

COUNTED = 1_000_000
"""Rows that are counted, at most."""

MOST_CLASSES = 200
"""A column with more different values is no class."""


ALIKE = 0.9
"""Share of the rows that have as many tags as words, at least, in data for tagging; the rest has faults."""


@dataclass(frozen=True)
class Seen:
    """What was found."""

    task: str
    why_task: str
    columns: Mapping[str, str]
    """Role → column, where a column has no usual name; else empty."""
    splits: Mapping[str, int]
    """Rows of each split that the data brings itself; :data:`COUNTED` where there are at least as many."""
    classes: Mapping[str, int]
    """Rows of each class among those looked at, the commonest first; empty where rows have no class."""
    words: tuple[int, int]
    """Words of a text at the median and at the 99th percentile; zeros for pictures."""

    @property
    def rows(self) -> int:
        """Of ``data.train``."""
        return self.splits["train"]

    @property
    def imbalance(self) -> float:
        """How many times as many rows the commonest class has as the rarest; 1 where there are no classes."""
        counts = list(self.classes.values())
        return max(counts) / max(1, min(counts)) if counts else 1.0

    @property
    def commonest(self) -> float:
        """The share of the commonest class."""
        return max(self.classes.values()) / sum(self.classes.values()) if self.classes else 0.0


def look(data: str, base_dir: str, task: str | None = None, said: Mapping[str, str] | None = None) -> Seen:
    """Look at labelled data: a file, folder, glob, URI or Hub id.

    ``task`` and ``said`` (role → column) come before what is found. Raises :class:`DataError`, and :class:`UserError` where it
    cannot be told what is to be learned.
    """
    found = resolve(data, "auto", base_dir, "train")
    kind = found["train"][0].format
    table = _first_rows(found["train"])
    counts = {name: count_rows(sources, COUNTED) for name, sources in found.items()}
    if not len(table):
        raise DataError(f"{data} has no rows\n    → Give data with at least one row below the column names.")
    names = list(table)
    chosen, why, mapping = _task_of(kind, table, task, dict(said or {}), data)
    roles = columns.match(names, load_task(chosen), mapping, data)
    made = load_task(chosen)
    examples = ({role: table[column][index] for role, column in roles.items()} for index in range(len(table[names[0]])))
    strata = Counter(stratum for example in examples if (stratum := _stratum(made, example)) is not None)
    return Seen(
        task=chosen,
        why_task=why,
        columns=mapping,
        splits=counts,
        classes=dict(strata.most_common()),
        words=_lengths(table, roles),
    )


def size_up(task: str, model: str) -> Size:
    """The size of a model for a task, and its layer groups, as far as they can be told by its config."""
    from tunesmith.training.parameters import layer_groups

    made = load_task(task)
    if not isinstance(made, Outlines):
        return Size(None)
    values = {"task": task, "model": {"model_name_or_path": model}, "data": {"train": "hf://any/data"}}
    state = {"labels": ["no", "yes"], "multi_label": False}
    try:
        outline = made.outline(Recipe.from_dict(values), state)
    except UserError:  # no such model, which the search tells better
        return Size(None)
    try:
        layers = len(layer_groups(outline))
    except UserError:  # layers that are no groups
        return size_of(outline, None)
    return size_of(outline, layers)


def _first_rows(sources: Sequence[Any]) -> dict[str, list[Any]]:
    """The first rows, by column."""
    gathered: dict[str, list[Any]] = {}
    count = 0
    for source in sources:
        for chunk in source.chunks():
            for name in chunk.table.column_names:
                gathered.setdefault(name, [None] * count).extend(chunk.table[name].to_pylist())
            count += len(chunk.table)
            for values in gathered.values():
                values.extend([None] * (count - len(values)))
            if count >= LOOKED_AT:
                return gathered
    return gathered


def _task_of(
    kind: str, table: Mapping[str, list[Any]], task: str | None, said: dict[str, str], data: str
) -> tuple[str, str, dict[str, str]]:
    """The task, why it is that, and the columns that have to be named for it."""
    if task is not None:
        return task, "as it was asked for", _named(table, task, said)
    if kind == "imagefolder":
        return "image-classification", "the data is a folder of pictures", said
    if _is_tagged(table, said):
        return "token-classification", "rows hold lists of words, and a tag for each word", said
    for name in ("image-classification", "text-classification"):
        if _matches(table, name, said):
            return name, f"its columns are those of {name}", said
    guessed = _named(table, "text-classification", said)
    if {"text", "label"} <= set(guessed):
        return "text-classification", f"{guessed['text']} holds texts, and {guessed['label']} few different values", guessed
    if any(isinstance(value, list) for values in table.values() for value in values[:50]):  # which of them is told in its place
        return "token-classification", "a column holds lists", said
    listed = ", ".join(repr(name) for name in table)
    raise UserError(
        f"what is to be learned from {data} cannot be told: its columns are {listed}\n"
        f"    → Say the task and the columns: --task text-classification --column text=COLUMN --column label=COLUMN "
        f"(tasks: {', '.join(KNOWN)})"
    )


def _is_tagged(table: Mapping[str, list[Any]], said: Mapping[str, str]) -> bool:
    """Whether rows hold words and a tag for each; the columns go by their names, else any two with lists are looked at.

    Texts with several classes have lists too, but not as long as the texts.
    """
    try:
        roles = columns.match(list(table), load_task("token-classification"), said, "the data")
    except DataError:
        lists = [name for name in table if any(isinstance(value, list) for value in table[name])]
        return any(_as_long(table[one], table[other]) for one, other in itertools.combinations(lists, 2))
    return _as_long(table[roles["tokens"]], table[roles["tags"]])


def _as_long(words: Sequence[Any], tags: Sequence[Any]) -> bool:
    """Whether there are as many tags as words in nearly every row, and more than one somewhere."""
    rows = [pair for pair in zip(words, tags, strict=True) if any(isinstance(value, list) for value in pair)]
    counts = [(len(labels.words(one) or []), len(labels.words(other) or [])) for one, other in rows]
    alike = [count for count, other in counts if count == other]
    return max(alike, default=0) > 1 and len(alike) >= ALIKE * len(counts)


def _matches(table: Mapping[str, list[Any]], task: str, said: dict[str, str]) -> bool:
    try:
        columns.match(list(table), load_task(task), said, "the data")
    except DataError:
        return False
    return True


def _named(table: Mapping[str, list[Any]], task: str, said: dict[str, str]) -> dict[str, str]:
    """The columns of a text classification by what is in them, where their names do not tell."""
    if task != "text-classification" or _matches(table, task, said):
        return said
    found = dict(said)
    texts = {name: [value for value in values if isinstance(value, str)] for name, values in table.items()}
    free = [name for name in table if name not in found.values()]
    if "label" not in found:
        few = [name for name in free if 2 <= len(set(map(str, table[name]))) <= min(MOST_CLASSES, len(table[name]) // 5)]
        if few:
            found["label"] = min(few, key=lambda name: len(set(map(str, table[name]))))
    if "text" not in found:
        long = [name for name in free if name != found.get("label") and texts[name]]
        if long:
            found["text"] = max(long, key=lambda name: sum(map(len, texts[name])) / len(texts[name]))
    return found


def _stratum(task: Any, example: dict[str, Any]) -> str | None:
    if example.get(task.target) is None:
        return None
    found = task.stratum(example)
    return str(found) if found is not None else None


def _lengths(table: Mapping[str, list[Any]], roles: Mapping[str, str]) -> tuple[int, int]:
    """Words at the median and the 99th percentile."""
    counts = np.zeros(len(next(iter(table.values()))), dtype=np.int64)
    for role in ("text", "text_pair", "tokens"):
        for index, value in enumerate(table[roles[role]] if role in roles else ()):
            counts[index] += len(value) if isinstance(value, list) else len(str(value or "").split())
    if not counts.any():
        return 0, 0
    return int(np.quantile(counts, 0.5)), int(np.quantile(counts, 0.99))
