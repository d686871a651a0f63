"""Every kind of task with a tiny model, data to learn from, and what it must refuse: the rows of the conformance suite."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from support.data import pictures, scenes, sentences, sounds, texts
from support.models import tiny_bert, tiny_detr, tiny_resnet, tiny_vit, tiny_wav2vec2
from tunesmith.recipe import Recipe

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One task as a user would set it up."""

    id: str
    task: str
    base: Callable[[Path], Path]
    rows: Callable[[int], Rows]
    bad: tuple[tuple[dict[str, Any], str], ...]
    """Values that make an example unusable, each with words of the reason."""
    unknown: dict[str, Any]
    """A target that training lacks."""
    said: str
    """The answer's key that holds what was said."""
    shipped: bool = True
    cut_freely: bool = True
    """Whether training does not depend on how batches are cut: no batch norm, no matching."""
    training: dict[str, Any] = field(default_factory=dict)

    def recipe(self, folder: Path, **training: Any) -> Recipe:
        """A recipe over the case's data in files; 64 rows, of which 16 are for validation and 16 for testing."""
        folder.mkdir(parents=True, exist_ok=True)
        base = folder / "base"
        values = {
            "task": self.task,
            "model": {"model_name_or_path": str(base if base.exists() else self.base(base))},
            "data": {"train": write(self.rows(64), folder / "data"), "split": {"validation": 0.25, "test": 0.25}},
            "training": {
                "output_dir": str(folder / "runs"),
                "bf16": False,
                "use_gpu": False,
                "learning_rate": 3e-3,
                "per_device_train_batch_size": 8,
                "logging_steps": 1,
                "eval_strategy": "no",
                "load_best_model_at_end": False,
                **self.training,
                **training,
            },
        }
        return Recipe.from_dict(values, base_dir=folder)


def several(n: int) -> Rows:
    """Texts with any number of labels: a row may have none."""
    return [
        {
            "text": row["text"],
            "label": [name for name, there in (("low", row["label"] == "low"), ("long", len(row["text"]) > 60)) if there],
        }
        for row in texts(n)
    ]


def pairs(n: int) -> Rows:
    """Two texts; the label is that of the second."""
    return [
        {"text": one["text"], "text_pair": other["text"], "label": other["label"]}
        for one, other in zip(texts(n, seed=1), texts(n), strict=True)
    ]


NO_TEXT = (
    ({"text": None}, "text is missing"),
    ({"text": float("nan")}, "text is missing"),
    ({"text": " "}, "text is empty"),
    ({"text": 7}, "text is int 7, not text"),
    ({"label": None}, "label is missing"),
)
NO_IMAGE = (
    ({"image": b"no image"}, "not a known image format"),
    ({"image": b""}, "0 bytes"),
    ({"image": None}, "image is missing"),
    ({"image": "/nowhere/1.png"}, "not there"),
)

BERT, VIT = partial(tiny_bert, spread=0.2), partial(tiny_vit, spread=0.2)

CASES = {
    case.id: case
    for case in (
        Case("text", "text-classification", BERT, texts, NO_TEXT, {"label": "hihg"}, "label"),
        Case("multi-label", "text-classification", BERT, several, NO_TEXT, {"label": ["low", "lnog"]}, "labels"),
        Case(
            "text-pair",
            "text-classification",
            BERT,
            pairs,
            (*NO_TEXT, ({"text_pair": ""}, "text_pair is empty")),
            {"label": "middle"},
            "label",
        ),
        Case(
            "token",
            "token-classification",
            BERT,
            sentences,
            (
                ({"tokens": []}, "tokens are missing or empty"),
                ({"tags": ["O"]}, "words but 1 tags"),
                ({"tags": None}, "tags are missing"),
            ),
            {"tags": ["B-Z"]},
            "tags",
        ),
        Case(
            "vit",
            "image-classification",
            VIT,
            pictures,
            (*NO_IMAGE, ({"label": ""}, "label is missing")),
            {"label": "n"},
            "label",
        ),
        Case("resnet", "image-classification", tiny_resnet, pictures, NO_IMAGE, {"label": "n"}, "label", cut_freely=False),
        Case(
            "detection",
            "support.tasks_detection:Detection",
            tiny_detr,
            scenes,
            (*NO_IMAGE, ({"objects": {"bbox": [[1, 1, 0, 2]], "category": ["red"]}}, "box is empty")),
            {"objects": {"bbox": [[1, 1, 2, 2]], "category": ["green"]}},
            "labels",
            shipped=False,
            cut_freely=False,
        ),
        Case(
            "ctc",
            "support.tasks_ctc:SpeechToText",
            tiny_wav2vec2,
            sounds,
            (
                ({"audio": b"no sound"}, "audio is unreadable"),
                ({"audio": None}, "audio is missing"),
                ({"text": " "}, "text is missing or empty"),
            ),
            {"text": "abx"},
            "text",
            shipped=False,
        ),
    )
}


def write(rows: Rows, folder: Path) -> str:
    """The rows as a user keeps them: JSON Lines, with images and sounds in files beside it; returns the place."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        line = dict(row)
        for role, suffix in (("image", "png"), ("audio", "wav")):
            if role in row:
                line[role] = f"{number:03d}.{suffix}"
                (folder / line[role]).write_bytes(png(row[role]) if role == "image" else wav(row[role]))
        lines.append(json.dumps(line))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "rows.jsonl")


def png(pixels: np.ndarray) -> bytes:
    """An image file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def wav(samples: np.ndarray) -> bytes:
    """A sound file: 16 bits, one channel, 16 kHz."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes((samples * 32767).astype("<i2").tobytes())
    return stream.getvalue()
