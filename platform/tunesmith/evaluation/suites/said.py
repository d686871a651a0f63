"""Which classes examples are of, and which the model says, whether one class each or any number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.evaluation.suites.base import Bench

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Said:
    """References and answers, by class."""

    labels: list[str]
    truth: Flags
    """``[n, classes]``: which are right."""
    said: Flags
    """``[n, classes]``: which the model gives."""
    right: Flags
    """``[n]``: whether the whole answer is."""
    several: bool
    """Whether an example may have any number of classes."""


def said_of(bench: Bench) -> Said | None:
    """The classes of the bench's records; None where the task has none of whole examples."""
    task, state, records = bench.target.task, bench.target.state, bench.records
    if task.columns[task.target].kind not in ("label", "labels") or not state.get("labels"):
        return None
    if not {"reference", "prediction"} <= set(records.column_names):
        return None
    labels = [str(label) for label in state["labels"]]
    truth, said = (_flags(records[name].to_pylist(), labels) for name in ("reference", "prediction"))
    return Said(labels, truth, said, np.asarray(records["correct"].to_pylist(), dtype=bool), bool(state.get("multi_label")))


def _flags(values: list[Any], labels: list[str]) -> Flags:
    index = {label: k for k, label in enumerate(labels)}
    flags = np.zeros((len(values), len(labels)), dtype=bool)
    for row, value in enumerate(values):
        for one in value if isinstance(value, list) else [value]:
            if one in index:
                flags[row, index[one]] = True
    return flags
