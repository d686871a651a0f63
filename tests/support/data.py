"""Small data with something to learn in it, and splits in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from support.models import WORDS
from tunesmith.tasks.base import Features, Preprocessing, Task


class MemorySplit:
    """Examples encoded in memory: what the loop needs of a prepared split."""

    def __init__(self, task: Task, examples: Sequence[dict[str, Any]], preprocessing: Preprocessing) -> None:
        self._examples = list(examples)
        self._features = task.encode(self._examples, preprocessing)
        self.lengths = np.asarray([f.length for f in self._features], dtype=np.int32)
        self.counts = np.asarray([f.count for f in self._features], dtype=np.int32)

    def __len__(self) -> int:
        return len(self._examples)

    def features(self, indices: Sequence[int]) -> list[Features]:
        return [self._features[i] for i in indices]

    def examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [self._examples[i] for i in indices]


def texts(n: int, seed: int = 0, longest: int = 20) -> list[dict[str, Any]]:
    """Texts of words from either half of the vocabulary; the label is the half that has more of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        length = int(rng.integers(2, longest))
        low = rng.random() < 0.5
        half = len(WORDS) // 2
        ids = np.where(rng.random(length) < 0.8, rng.integers(0, half, length), rng.integers(half, 2 * half, length))
        ids = ids if low else (ids + half) % len(WORDS)
        rows.append({"text": " ".join(WORDS[k] for k in ids), "label": "low" if low else "high", "id": i})
    return rows


def sentences(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences in which some words are entities."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = rng.integers(0, len(WORDS), int(rng.integers(2, 15)))
        rows.append({"tokens": [WORDS[k] for k in ids], "tags": ["B-X" if k < 10 else "B-Y" if k < 20 else "O" for k in ids]})
    return rows


def pictures(n: int, seed: int = 0, side: int = 16) -> list[dict[str, Any]]:
    """Noise with a bright quarter: the label says which."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        pixels = rng.integers(0, 80, (side, side, 3), dtype=np.uint8)
        corner = int(rng.integers(0, 4))
        y, x = (corner // 2) * side // 2, (corner % 2) * side // 2
        pixels[y : y + side // 2, x : x + side // 2] += 120
        rows.append({"image": pixels, "label": ["nw", "ne", "sw", "se"][corner]})
    return rows


def scenes(n: int, seed: int = 0, side: int = 24) -> list[dict[str, Any]]:
    """Dark noise with one or two squares in it, red or blue; a few have none."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        pixels = rng.integers(0, 40, (side, side, 3), dtype=np.uint8)
        boxes, kinds = [], []
        for half in rng.permutation(2)[: 0 if i % 9 == 8 else int(rng.integers(1, 3))]:
            width, top = int(rng.integers(6, 10)), int(rng.integers(0, side - 10))
            left = int(half) * side // 2 + int(rng.integers(0, side // 2 - width + 1))
            red = bool(rng.random() < 0.5)
            pixels[top : top + width, left : left + width, 0 if red else 2] = 240
            boxes.append([float(left), float(top), float(width), float(width)])
            kinds.append("red" if red else "blue")
        rows.append({"image": pixels, "objects": {"bbox": boxes, "category": kinds}})
    return rows


def sounds(n: int, seed: int = 0, letter: int = 320) -> list[dict[str, Any]]:
    """Words of a few letters, each letter a tone of its own height and ``letter`` samples long."""
    rng = np.random.default_rng(seed)
    heights = {"a": 0.02, "b": 0.05, "c": 0.11, " ": 0.0}
    rows = []
    for _ in range(n):
        text = "".join(rng.choice(["a", "b", "c"], int(rng.integers(1, 4))))
        if rng.random() < 0.3:
            text += " " + str(rng.choice(["a", "b", "c"]))
        tone = np.concatenate([np.sin(2 * np.pi * heights[character] * np.arange(letter)) for character in text])
        rows.append({"audio": (0.5 * tone + 0.02 * rng.standard_normal(len(tone))).astype(np.float32), "text": text})
    return rows
