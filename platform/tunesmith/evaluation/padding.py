"""Whether padding changes a model's answers: tried on made-up examples, so that nothing is asked of the model's kind.

A model without an attention mask (FNet, many convolutions over sound) reads its padding: an example's answer then depends on
the length of those that share its batch. Such a model is given batches of equal lengths, in evaluation as where it is served.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tunesmith.evaluation.predictor import Predictor

TOLERANCE = 1e-5
"""Most that a score may change with the examples that share its batch (of its size, where that is above 1). Float32 sums differ
in their last bits with a batch's shape (1e-8 on the tests' BERT); one that reads its padding differs by 2e-4 or more."""

IMAGE_SIDE = 64
LENGTHS = (3, 24)
"""Words of a short and of a long made-up text; seconds of sound are a tenth of that."""
SAMPLING_RATE = 16_000


def samples(predictor: Predictor, lengths: Sequence[int] = LENGTHS) -> list[dict[str, Any]]:
    """Examples of these lengths that the task can encode; empty where it takes something that cannot be made up."""
    made = []
    for length in lengths:
        example = {}
        for role, column in predictor.task.columns.items():
            if role == predictor.task.target or not column.required:
                continue
            value = _value(column.kind, length)
            if value is None:
                return []
            example[role] = value
        if predictor.task.check(example):
            return []
        made.append(example)
    return made


def _value(kind: str, length: int) -> Any:
    words = ["the", "quick", "brown", "fox"] * length
    if kind == "text":
        return " ".join(words[:length])
    if kind == "strings":
        return words[:length]
    if kind == "image":
        return _noise()
    if kind == "audio":
        return np.random.default_rng(0).normal(0, 0.1, SAMPLING_RATE * length // 10).astype(np.float32)
    return None


def _noise() -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def is_harmless(predictor: Predictor) -> bool:
    """Whether answers stay the same, within :data:`TOLERANCE`, when an example is padded to the length of another one.

    Two passes: of one example, and of two. Where that cannot be tried, it is not taken to be so; where the examples of a task
    all have one length, it is.
    """
    made = samples(predictor)
    if not made:
        return not predictor.task.ragged
    encoded = predictor.task.encode(made, predictor.preprocessing)
    alone = predictor.forward(encoded[:1])[0]
    together = predictor.forward(encoded)[0]
    tried = len({one.length for one in encoded}) > 1
    return not predictor.task.ragged or (tried and same(alone, together))


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether two answers agree: words to the letter, numbers within the tolerance.

    >>> same({"label": "a", "probabilities": [0.5, 0.5]}, {"label": "a", "probabilities": [0.500004, 0.499996]})
    True
    >>> same({"label": "a"}, {"label": "b"})
    False
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= tolerance * max(1.0, abs(one))
    return bool(one == other)
