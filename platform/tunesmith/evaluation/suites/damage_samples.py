"""Damaged inputs worth a look: of each kind the example that it misled, as it was and as it became."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.evaluation import perturbations
from tunesmith.evaluation.examples import shown_value
from tunesmith.evaluation.suites.base import Bench
from tunesmith.tasks.base import Record

Made = Callable[[Any, str, str, int], Any]
"""The whole input, the example's id, kind, severity → the damaged input, the same every time."""


@dataclass(frozen=True)
class Ask:
    """What was asked and answered."""

    role: str
    kind: str
    """Of the input: ``text``, ``strings`` or ``image``."""
    chosen: np.ndarray
    """The examples' places in the split."""
    conditions: Sequence[tuple[str, int]]
    records: Mapping[tuple[str, int], Sequence[Record | None]]


def samples(bench: Bench, ask: Ask, made: Made) -> list[dict[str, Any]]:
    """Of each kind of damage one example, as plain data.

    Each has ``kind``, ``input`` (its own kind), ``id``, ``reference``, ``before`` and ``prediction`` (said of it whole), and
    ``after``: for each severity ``severity``, ``value``, ``prediction``, ``correct``.
    """
    right = np.asarray(bench.records["correct"].to_pylist(), dtype=bool)[ask.chosen]
    found, opened = [], {}
    for kind in dict.fromkeys(name for name, _ in ask.conditions):
        severities = [severity for name, severity in ask.conditions if name == kind]
        place = _misled(ask, kind, severities, right)
        index = int(ask.chosen[place])
        if place not in opened:
            opened[place] = perturbations.readable(bench.split.example(index)[ask.role], ask.kind)
        found.append(_sample(bench, ask, made, kind, severities, place, opened[place]))
    return found


def _misled(ask: Ask, kind: str, severities: Sequence[int], right: np.ndarray) -> int:
    """An example that was right, and is wrong at the least severity where one is; else the first."""
    for severity in severities:
        wrong = np.asarray([one is not None and not one["correct"] for one in ask.records[kind, severity]])
        both = np.flatnonzero(right & wrong)
        if len(both):
            return int(both[0])
    return 0


def _sample(bench: Bench, ask: Ask, made: Made, kind: str, severities: Sequence[int], place: int, whole: Any) -> dict[str, Any]:
    index = int(ask.chosen[place])
    identity = str(bench.split.ids[index].as_py())
    record = bench.records.slice(index, 1).to_pylist()[0]
    after = []
    for severity in severities:
        said = ask.records[kind, severity][place]
        value = perturbations.answerable(made(whole, identity, kind, severity), ask.kind)
        after.append(
            {
                "severity": severity,
                "value": shown_value(ask.kind, value),
                "prediction": said.get("prediction") if said else None,
                "correct": bool(said["correct"]) if said else None,
            }
        )
    return {
        "kind": kind,
        "input": ask.kind,
        "id": identity,
        "reference": record.get("reference"),
        "before": shown_value(ask.kind, perturbations.answerable(whole, ask.kind)),
        "prediction": record.get("prediction"),
        "after": after,
    }
