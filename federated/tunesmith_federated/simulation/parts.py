"""Who has what in a simulation: the training rows of prepared data, dealt out to sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.errors import UserError, nearest
from tunesmith_federated.holdings import deal
from tunesmith_federated.partition import count, partition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunesmith.data import PreparedData
    from tunesmith.data.prepared import Split
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Task

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dealt:
    """The rows of each site, by name, and how many of each class it has."""

    train: Mapping[str, Rows]
    holdout: Mapping[str, Rows]
    counts: Mapping[str, Mapping[str, int]]
    """Site → class → rows, those held back included; empty where the task has no classes."""


def dealt(recipe: Recipe, task: Task, prepared: PreparedData) -> Dealt:
    """Deal the training rows out as ``federation.partition`` says, and hold back each site's share.

    Raises :class:`UserError` where there are no such sites to be had.
    """
    section, train = recipe.federation, prepared.splits["train"]
    labels = [task.stratum(example) for example in train.examples()]
    classed = None if any(label is None for label in labels) else np.array(labels, dtype=object)
    column = _column(train, section.partition.column) if section.partition.by == "column" else None
    parts = partition(section.partition, section.sites, classed, column, len(train))
    seed = section.partition.seed
    cut = {name: deal(rows, section.holdout, seed + number) for number, (name, rows) in enumerate(sorted(parts.items()))}
    counts = count(dict(sorted(parts.items())), classed) if classed is not None else {}
    return Dealt({name: one for name, (one, _) in cut.items()}, {name: two for name, (_, two) in cut.items()}, counts)


def _column(train: Split, name: str | None) -> list[str]:
    table = train.rows()
    if name not in table.column_names:
        near = nearest(str(name), table.column_names)
        raise UserError(
            f"federation.partition.column: the data has no column {name!r}\n    → "
            + (f"Did you mean {near}? " if near else "")
            + f"There are {', '.join(table.column_names)}"
        )
    return [str(value) for value in table[name].to_pylist()]
