"""Which examples another model answers otherwise: fixed, broken, or another wrong answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import UserError
from tunesmith.evaluation.decisions import mcnemar
from tunesmith.evaluation.examples import shown_inputs
from tunesmith.evaluation.pairing import different
from tunesmith.evaluation.predictions import ID
from tunesmith.evaluation.results import ShownInput
from tunesmith.evaluation.sides import Side

log = logging.getLogger(__name__)

Kind = Literal["fixed", "broken", "other"]

MOST = 300
"""Examples that are kept to be looked at: broken ones first, then fixed ones, each by how sure the models were."""


MOST_CLASSES = 1000
"""Different right answers beyond which they are no classes."""


@dataclass(frozen=True)
class Flips:
    """How often the two are right, and whether they say the same."""

    both_right: int
    fixed: int
    """A is right where B is wrong."""
    broken: int
    """A is wrong where B is right."""
    both_wrong: int
    churn: int
    """Examples to which the two answer differently, right or wrong."""
    p: float
    """Exact McNemar's, that as many are fixed as broken."""
    by_class: dict[str, float] = field(default_factory=dict)
    """Right class → the same within it; empty where an example has not one class."""


@dataclass(frozen=True)
class Flip:
    """One example to which the two answer differently."""

    id: str
    kind: Kind
    """``other``: both are wrong, in different ways, or both right in words that differ."""
    reference: Any
    a: Any
    b: Any
    a_confidence: float | None = None
    b_confidence: float | None = None
    inputs: list[ShownInput] = field(default_factory=list)
    """What the example is, where the data is still there."""


def count(mine: pa.Table, theirs: pa.Table) -> Flips:
    """The flip table of two models' records in the same order."""
    a, b = _right(mine), _right(theirs)
    fixed, broken = int((a & ~b).sum()), int((~a & b).sum())
    return Flips(
        both_right=int((a & b).sum()),
        fixed=fixed,
        broken=broken,
        both_wrong=int((~a & ~b).sum()),
        churn=int(_changed(mine, theirs).sum()),
        p=mcnemar(fixed, broken),
        by_class=_by_class(mine, a, b),
    )


def _by_class(records: pa.Table, a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """McNemar's p within each right class, where A and B are right on these examples ``[n]``."""
    reference = records["reference"].combine_chunks() if "reference" in records.column_names else None
    if reference is None or not pa.types.is_string(reference.type):
        return {}
    coded = reference.dictionary_encode()
    codes, labels = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), coded.dictionary.to_pylist()
    if len(labels) > MOST_CLASSES:
        return {}
    fixed = np.bincount(codes[a & ~b & (codes >= 0)], minlength=len(labels))
    broken = np.bincount(codes[~a & b & (codes >= 0)], minlength=len(labels))
    return {label: mcnemar(int(fixed[k]), int(broken[k])) for k, label in enumerate(labels)}


def flipped(a: Side, b: Side, mine: pa.Table, theirs: pa.Table) -> list[Flip]:
    """The examples that the two answer differently, worth a look first."""
    right, other = _right(mine), _right(theirs)
    kinds = np.where(right & ~other, "fixed", np.where(~right & other, "broken", "other"))
    places = np.flatnonzero(_changed(mine, theirs) | (right != other))
    sure = _confidence(mine)[places] + _confidence(theirs)[places]
    rank = np.select([kinds[places] == "broken", kinds[places] == "fixed"], [0, 1], 2)
    chosen = places[np.lexsort((-sure, rank))][:MOST]
    inputs = _inputs(a, mine, chosen) or _inputs(b, mine, chosen)
    found = []
    for k, one, two in zip(chosen.tolist(), _rows(mine, chosen), _rows(theirs, chosen), strict=True):
        found.append(
            Flip(
                id=one[ID],
                kind=str(kinds[k]),  # type: ignore[arg-type]
                reference=one.get("reference"),
                a=one.get("prediction"),
                b=two.get("prediction"),
                a_confidence=one.get("confidence"),
                b_confidence=two.get("confidence"),
                inputs=inputs.get(one[ID], []),
            )
        )
    return found


def _right(records: pa.Table) -> np.ndarray:
    return np.asarray(records["correct"].combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)


def _changed(mine: pa.Table, theirs: pa.Table) -> np.ndarray:
    """Where the answers differ; of predictions without answers, where one is right and the other is not."""
    if "prediction" not in mine.column_names or "prediction" not in theirs.column_names:
        return np.asarray(_right(mine) != _right(theirs))
    changed: np.ndarray = different(mine["prediction"], theirs["prediction"])
    return changed


def _confidence(records: pa.Table) -> np.ndarray:
    if "confidence" not in records.column_names:
        return np.zeros(len(records))
    sure: np.ndarray = records["confidence"].to_numpy().astype(np.float64)
    return np.asarray(np.nan_to_num(sure))


def _rows(records: pa.Table, places: np.ndarray) -> list[Mapping[str, Any]]:
    kept = [name for name in (ID, "reference", "prediction", "confidence") if name in records.column_names]
    rows: list[Mapping[str, Any]] = records.select(kept).take(pa.array(places)).to_pylist()
    return rows


def _inputs(side: Side, records: pa.Table, places: np.ndarray) -> dict[str, list[ShownInput]]:
    """What the examples are, from the run's prepared data; empty where that is not there any more, or was other data."""
    split = _split(side)
    if split is None or side.task is None:
        return {}
    ids = records[ID].take(pa.array(places)).combine_chunks()
    there = pc.index_in(ids, value_set=split.ids)
    return {
        name: shown_inputs(split.example(place), side.task)
        for name, place in zip(ids.to_pylist(), there.to_pylist(), strict=True)
        if place is not None
    }


def _split(side: Side) -> Split | None:
    place = side.run.manifest.get("prepared") if side.run else None
    if side.evaluation is None or side.evaluation.source is not None or not place:
        return None
    try:
        return PreparedData.open(place).splits.get(side.evaluation.split)
    except (UserError, OSError) as error:
        log.info("the examples of %s are not shown: %s", side.name, error)
        return None
