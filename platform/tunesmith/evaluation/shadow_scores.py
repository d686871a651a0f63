"""What shadow models said of a run's training rows and of rows that none of them has seen: kept with the run.

A shadow model is trained like the run's own, on half of its training rows (:mod:`tunesmith.training.shadows`). They come in
pairs with complementary halves, so that each training row is in exactly half of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith import storage
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.evaluation.predictions import read_predictions

if TYPE_CHECKING:
    from tunesmith.runs import Run

FOLDER = "privacy"
OTHERS = ("test", "validation")
"""Splits that no update was made on; the first that there is is told from the training rows."""


@dataclass(frozen=True)
class Shadow:
    """The losses of one shadow model."""

    member: npt.NDArray[np.bool_]
    """``[training rows]``: which it was trained on."""
    train: npt.NDArray[np.float64]
    """``[training rows]``."""
    others: npt.NDArray[np.float64]
    """``[other rows]``, of which it has seen none."""


def other_rows(data: PreparedData) -> Split | None:
    """The rows that the run was not trained on; None where all were."""
    return next((data.splits[name] for name in OTHERS if len(data.splits.get(name, ()))), None)


def half(n: int, shadow: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which of ``n`` training rows a shadow model is trained on: every even one has a random half, the next one the rest.

    >>> bool((half(9, 0, seed=1) ^ half(9, 1, seed=1)).all()), int(half(9, 2, seed=1).sum())
    (True, 4)
    """
    mask = np.zeros(n, dtype=bool)
    mask[np.random.default_rng((seed, shadow // 2, 0x5AD0)).permutation(n)[: n // 2]] = True
    return mask if shadow % 2 == 0 else ~mask


def place(run: Run, shadow: int, seed: int) -> str:
    """The file of one shadow model."""
    return run.file(f"{FOLDER}/shadow-{seed}-{shadow:03d}.parquet")


def write(run: Run, number: int, seed: int, data: PreparedData, shadow: Shadow) -> None:
    """Keep what a shadow model said, with the rows that it was asked about."""
    others = other_rows(data)
    table = pa.table(
        {
            "id": pa.chunked_array([data.splits["train"].ids, *([others.ids] if others is not None else [])]),
            "training_row": np.arange(len(shadow.train) + len(shadow.others)) < len(shadow.train),
            "member": np.concatenate([shadow.member, np.zeros(len(shadow.others), dtype=bool)]),
            "loss": np.concatenate([shadow.train, shadow.others]),
        }
    )
    with storage.writing(place(run, number, seed)) as stream:
        pq.write_table(table, stream, compression="zstd")


def read(run: Run, number: int, seed: int, data: PreparedData) -> Shadow | None:
    """What a shadow model said; None where it has not been trained, or was asked about other rows."""
    try:
        table = read_predictions(place(run, number, seed))
    except FileNotFoundError:
        return None
    train, others = data.splits["train"], other_rows(data)
    ids = [*train.ids.to_pylist(), *(others.ids.to_pylist() if others is not None else [])]
    if table["id"].to_pylist() != ids:
        return None
    member, loss = (np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in ("member", "loss"))
    return Shadow(member[: len(train)].astype(bool), loss[: len(train)], loss[len(train) :])


def stored(run: Run, most: int, seed: int, data: PreparedData) -> Iterator[Shadow]:
    """The first ``most`` shadow models, as far as they were trained."""
    for number in range(most):
        found = read(run, number, seed, data)
        if found is None:
            return
        yield found
