"""The kinds of records whose sums say more than means: what is counted of them, and records that have these counts.

:func:`cells` makes few synthetic records with weights, one for each kind of hit and mistake, over which the task's own
``aggregate`` gives what it would over the real ones: no formula of a metric stands here a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.tasks import classes
from tunesmith.tasks.metrics import ECE_BINS
from tunesmith.tasks.tagging import tag_types, tagging_counts

if TYPE_CHECKING:
    from tunesmith.tasks.base import State, Task

Sums = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

KINDS = {"classes": ("confusion", "calibration"), "labels": ("counts", "calibration"), "tags": ("counts",), "averaged": ()}
"""What each kind has beside its means, and histograms where there are not too many classes."""
BINS = 1000
"""Of a score's histogram, of equal width in arcsin √p: narrow near 0 and 1, where a trained model's scores are."""
MOST_HISTOGRAMS = 100
"""Classes up to which histograms are sent; beyond, areas are the means of the sites'."""
_OUTSIDE = "O"


def is_tagging(records: pa.Table, state: State) -> bool:
    """Whether each record is a list of words with a tag for each, right and said."""
    return (
        "labels" in state
        and "probabilities" not in records.column_names
        and all(name in records.column_names and _is_list(records[name].type) for name in ("reference", "prediction"))
    )


def kinds_of(task: Task, state: State) -> frozenset[str]:
    """The kinds that sums of this task's records can have: means alone, or also what its target and its state allow."""
    if "labels" not in state:
        return frozenset({"averaged"})
    target = task.columns[task.target].kind
    if state.get("multi_label"):
        return frozenset({"labels", "averaged"})
    if target == "tags":
        return frozenset({"tags", "averaged"})
    if target in ("label", "labels"):
        return frozenset({"classes", "averaged"})
    return frozenset({"classes", "tags", "averaged"})  # a task of one's own may have either


def words(records: pa.Table) -> int:
    """Tagged words in all records."""
    return sum(map(len, records["reference"].to_pylist()))


def of_kind(records: pa.Table, state: State) -> dict[str, Any]:
    """What is counted, with its ``kind``. Raises KeyError or ValueError for records of no such kind."""
    if is_tagging(records, state):
        return {"kind": "tags", "counts": _tag_counts(records, state)}
    truth, p = classes.arrays(records, state)
    if state.get("multi_label"):
        return _of_labels(truth, p)
    return _of_classes(truth, p, len(state["labels"]))


def cells(sums: Sums, state: State) -> tuple[pa.Table, Floats]:
    """Synthetic records with the counts of the sums, and how often each counts."""
    known: Sequence[str] = state["labels"]
    if sums["kind"] == "classes":
        rows = [_one(known, right, said) for right, said, _ in sums["confusion"]]
        weights = [count for *_, count in sums["confusion"]]
    elif sums["kind"] == "labels":
        rows, weights = _three(sums["counts"], range(len(known)), lambda right, said: _several(known, right, said))
    else:
        tags, outside = _tags(known), _OUTSIDE if _OUTSIDE in known else ""
        rows, weights = _three(sums["counts"], tags, lambda right, said: _tagged(right or outside, said or outside))
    return pa.Table.from_pylist(rows), np.asarray(weights, dtype=np.float64)


def bins_of(scores: npt.ArrayLike) -> Whole:
    """The bin of each score between 0 and 1.

    >>> bins_of([0.0, 0.5, 1.0]).tolist()
    [0, 500, 999]
    """
    angle = np.arcsin(np.sqrt(np.clip(np.asarray(scores, dtype=np.float64), 0, 1))) / (np.pi / 2)
    return np.minimum((angle * BINS + 1e-9).astype(np.int64), BINS - 1)


def _of_classes(truth: Any, p: Floats, size: int) -> dict[str, Any]:
    said = p.argmax(axis=1)
    pairs = Counter(zip(truth.tolist(), said.tolist(), strict=True))
    confidence = p.max(axis=1)
    told = {
        "kind": "classes",
        "confusion": [[right, guess, count] for (right, guess), count in sorted(pairs.items())],
        "calibration": _calibration(confidence, said == truth),
    }
    positive = [size - 1] if size == 2 else list(range(size))
    return told | _scores(p[:, positive], truth[:, None] == np.asarray(positive))


def _of_labels(truth: Any, p: Floats) -> dict[str, Any]:
    said = p >= classes.THRESHOLD
    counts = np.stack([(said & truth).sum(axis=0), said.sum(axis=0), truth.sum(axis=0)], axis=1)
    told = {"kind": "labels", "counts": counts.tolist(), "calibration": _calibration(p.ravel(), truth.ravel())}
    return told | _scores(p, truth)


def _tag_counts(records: pa.Table, state: State) -> list[list[int]]:
    types = tag_types(state["labels"])
    total = np.zeros((len(types), 3), dtype=np.int64)
    for right, said in zip(records["reference"].to_pylist(), records["prediction"].to_pylist(), strict=True):
        row = tagging_counts(right, said, types)
        total += np.asarray([row["correct"], row["predicted"], row["gold"]], dtype=np.int64).T
    return [[int(k) for k in row] for row in total]


def _calibration(confidence: Floats, right: Any) -> list[list[float]]:
    """Of each bin how many are in it, and by how much more of them are right than their confidence says."""
    place = (np.ceil(confidence * ECE_BINS).astype(np.int64) - 1).clip(0, ECE_BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=ECE_BINS)
    return [[int(n), float(gap)] for n, gap in zip(np.bincount(place, minlength=ECE_BINS), gaps, strict=True)]


def _scores(p: Floats, positive: Any) -> dict[str, Any]:
    """Histograms of each class's scores, where it is right and where it is not; empty bins are left out."""
    if p.shape[1] > MOST_HISTOGRAMS:
        return {}
    bins = bins_of(p)

    def held(which: Any) -> list[dict[str, int]]:
        found = [np.unique(bins[which[:, k], k], return_counts=True) for k in range(p.shape[1])]
        return [{str(int(place)): int(count) for place, count in zip(*pair, strict=True)} for pair in found]

    return {"positives": held(positive), "negatives": held(~positive)}


def _three(counts: Sequence[Sequence[int]], names: Any, make: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """For each class a record that hits it, one that says it wrongly, and one that misses it."""
    rows, weights = [], []
    for name, (correct, said, right) in zip(names, counts, strict=True):
        rows += [make(name, name), make(None, name), make(name, None)]
        weights += [correct, said - correct, right - correct]
    return rows, weights


def _one(known: Sequence[str], right: int, said: int) -> dict[str, Any]:
    p = np.zeros(len(known))
    p[said] = 1.0
    return {"reference": known[right], "prediction": known[said], "correct": right == said, "loss": 0.0, "probabilities": p}


def _several(known: Sequence[str], right: int | None, said: int | None) -> dict[str, Any]:
    p = np.zeros(len(known))
    if said is not None:
        p[said] = 1.0
    names = [[] if k is None else [known[k]] for k in (right, said)]
    return {"reference": names[0], "prediction": names[1], "correct": right == said, "loss": 0.0, "probabilities": p}


def _tagged(right: str, said: str) -> dict[str, Any]:
    return {"tokens": [""], "reference": [right], "prediction": [said], "correct": right == said, "loss": 0.0}


def _tags(known: Sequence[str]) -> list[str]:
    """A tag for each type that by itself is one entity of it."""
    types = tag_types(known)
    named: Mapping[str, str] = {kind: next(tag for tag in known if tag == kind or tag[2:] == kind) for kind in types}
    return list(named.values())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
