"""Examples ready to be shown: those that a model got most wrong and most right, and samples of all."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data.prepared import Split
from tunesmith.errors import DataError
from tunesmith.evaluation.results import Samples, ShownExample, ShownInput
from tunesmith.tasks import images
from tunesmith.tasks.base import Example, State, Task

THUMBNAIL = 128
"""Longer side of a thumbnail in pixels."""

SMALL, EXACT = 64, 16
"""Longer side in pixels of a sample's picture; up to so many pixels it is kept exactly."""

BLOCK = 500
"""Samples whose inputs are in memory at a time."""

MOST_TEXT = 600
"""Characters shown of a text."""

MOST_WORDS = 120
"""Words shown of a tagged sentence."""

MOST_CLASSES = 5


def best_and_worst(
    records: pa.Table, split: Split, task: Task, state: State, most: int
) -> tuple[list[ShownExample], list[ShownExample]]:
    """At most ``most`` examples of lowest loss that are right, and of highest loss; the worst begin with the wrong ones."""
    loss = np.nan_to_num(records["loss"].to_numpy().astype(np.float64), nan=np.inf)
    wrong = ~np.asarray(records["correct"].to_pylist(), dtype=bool)
    worst = np.lexsort((-loss, ~wrong))[:most]
    best = [k for k in np.argsort(loss, kind="stable")[: most * 4] if not wrong[k]][:most]
    return (
        [_shown(int(k), records, split, task, state) for k in best],
        [_shown(int(k), records, split, task, state) for k in worst],
    )


def samples(records: pa.Table, split: Split, task: Task, most: int) -> Samples:
    """At most ``most`` examples: the wrong ones, the surest first, then the right ones, the least sure first.

    A quarter of them are right ones, however many wrong ones there are. Where no confidence is told, the loss takes its place.
    """
    right = np.asarray(records["correct"].to_pylist(), dtype=bool)
    doubt = _doubt(records)
    wrong_ones, right_ones = np.flatnonzero(~right), np.flatnonzero(right)
    # a doubt that is not a number comes last of the wrong ones, and first of the right ones
    wrong_ones = wrong_ones[np.argsort(np.nan_to_num(doubt[wrong_ones], nan=np.inf), kind="stable")]
    right_ones = right_ones[np.argsort(np.nan_to_num(-doubt[right_ones], nan=-np.inf), kind="stable")]
    kept = wrong_ones[: most - min(len(right_ones), most // 4)]
    chosen = np.concatenate([kept, right_ones[: most - len(kept)]])
    return Samples(list(_samples(records, split, task, chosen)), len(records), len(wrong_ones))


def _doubt(records: pa.Table) -> np.ndarray:
    """How unsure the model was of each answer ``[n]``; of a wrong one a high loss is no doubt."""
    if "confidence" in records.column_names:
        sure: np.ndarray = records["confidence"].to_numpy().astype(np.float64)
        return np.asarray(1.0 - sure)
    loss: np.ndarray = records["loss"].to_numpy().astype(np.float64)
    right = np.asarray(records["correct"].to_pylist(), dtype=bool)
    return np.where(right, loss, -loss)


def _samples(records: pa.Table, split: Split, task: Task, chosen: np.ndarray) -> Iterator[ShownExample]:
    columns = [
        name for name in ("id", "reference", "prediction", "correct", "loss", "confidence") if name in records.column_names
    ]
    rows = records.select(columns).take(pa.array(chosen)).to_pylist()
    for start in range(0, len(chosen), BLOCK):
        examples = split.examples(chosen[start : start + BLOCK])
        for record, example in zip(rows[start : start + BLOCK], examples, strict=True):
            yield ShownExample(
                id=record["id"],
                inputs=shown_inputs(example, task, SMALL, EXACT),
                reference=_cut(record.get("reference")),
                prediction=_cut(record.get("prediction")),
                correct=bool(record["correct"]),
                loss=float(record["loss"]),
                confidence=record.get("confidence"),
            )


def shown_inputs(example: Example, task: Task, side: int = THUMBNAIL, exact: int = THUMBNAIL) -> list[ShownInput]:
    """The inputs of an example, cut to what a page can show; pictures as :func:`thumbnail` makes them."""
    return [
        ShownInput(role, column.kind, shown)
        for role, column in task.columns.items()
        if role != task.target and (shown := shown_value(column.kind, example.get(role), side, exact)) is not None
    ]


def _shown(index: int, records: pa.Table, split: Split, task: Task, state: State) -> ShownExample:
    record = records.slice(index, 1).to_pylist()[0]
    return ShownExample(
        id=record["id"],
        inputs=shown_inputs(split.example(index), task),
        reference=_cut(record.get("reference")),
        prediction=_cut(record.get("prediction")),
        correct=bool(record["correct"]),
        loss=float(record["loss"]),
        confidence=record.get("confidence"),
        probabilities=_likeliest(record, state),
    )


def _likeliest(record: Mapping[str, Any], state: State) -> list[tuple[str, float]]:
    shares, labels = record.get("probabilities"), state.get("labels")
    if not shares or not labels or len(shares) != len(labels):
        return []
    order = sorted(range(len(labels)), key=lambda k: -shares[k])[:MOST_CLASSES]
    return [(labels[k], float(shares[k])) for k in order]


def _cut(value: Any) -> Any:
    return value[:MOST_WORDS] if isinstance(value, list) else value


def shown_value(kind: str, value: Any, side: int = THUMBNAIL, exact: int = THUMBNAIL) -> Any:
    """An input as the report shows it: text that is cut, words, a thumbnail as a ``data:`` URI; None where there is none."""
    if value is None:
        return None
    if kind == "image":
        return thumbnail(value, side, exact)
    if kind == "strings":
        words = value.split() if isinstance(value, str) else [str(word) for word in value]
        return words[:MOST_WORDS]
    text = str(value) if not isinstance(value, bytes) else f"{len(value):,} bytes"
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def thumbnail(value: Any, side: int = THUMBNAIL, exact: int = THUMBNAIL) -> str | None:
    """A copy of an image of at most ``side`` pixels as a ``data:`` URI, or None where it can no longer be read.

    One of at most ``exact`` pixels is kept exactly.
    """
    try:
        image = images.open_image(value)
    except DataError:
        return None
    # Few pixels are kept exactly (the page shows them as squares); photographs are a tenth of the size with losses.
    tiny = max(image.size) <= exact
    if max(image.size) > side:
        image.thumbnail((side, side))
    stream = io.BytesIO()
    if tiny:
        image.save(stream, format="PNG", optimize=True)
    else:
        image.save(stream, format="WEBP", quality=80)
    return f"data:image/{'png' if tiny else 'webp'};base64,{base64.b64encode(stream.getvalue()).decode()}"
