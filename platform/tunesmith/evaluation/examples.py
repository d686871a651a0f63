"""The examples that a model got most wrong and most right, ready to be shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data.prepared import Split
from tunesmith.errors import DataError
from tunesmith.evaluation.results import ShownExample, ShownInput
from tunesmith.tasks import images
from tunesmith.tasks.base import State, Task

THUMBNAIL = 128
"""Longer side of a thumbnail in pixels."""

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


def _shown(index: int, records: pa.Table, split: Split, task: Task, state: State) -> ShownExample:
    record = records.slice(index, 1).to_pylist()[0]
    example = split.example(index)
    inputs = [
        ShownInput(role, column.kind, shown)
        for role, column in task.columns.items()
        if role != task.target and (shown := _value(column.kind, example.get(role))) is not None
    ]
    return ShownExample(
        id=record["id"],
        inputs=inputs,
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


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "image":
        return thumbnail(value)
    if kind == "strings":
        words = value.split() if isinstance(value, str) else [str(word) for word in value]
        return words[:MOST_WORDS]
    text = str(value) if not isinstance(value, bytes) else f"{len(value):,} bytes"
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def thumbnail(value: Any) -> str | None:
    """A small copy of an image as a ``data:`` URI, or None where it can no longer be read."""
    try:
        image = images.open_image(value)
    except DataError:
        return None
    tiny = max(image.size) <= THUMBNAIL
    if not tiny:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    # Few pixels are kept exactly (the page shows them as squares); photographs are a tenth of the size as JPEG.
    if tiny:
        image.save(stream, format="PNG", optimize=True)
    else:
        image.save(stream, format="JPEG", quality=80)
    return f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
