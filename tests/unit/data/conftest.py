"""A small real task without any model library, and recipes over files in a temporary folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Column, Example, Features, Preprocessing, State, Stats


class Letters:
    """Texts into classes, by the codes of their letters. ``encode`` refuses texts with a ``☠`` in them."""

    name = "letters"
    columns: Mapping[str, Column] = {
        "text": Column("text", "the text", ("text", "review")),
        "pair": Column("text", "a second text", ("text_pair",), required=False),
        "label": Column("label", "its class", ("label", "stars")),
    }
    target = "label"
    ragged = True

    def check(self, example: Example) -> str | None:
        text = example.get("text")
        if not isinstance(text, str):
            return "text is missing" if text is None else f"text is {type(text).__name__}, not text"
        if not text.strip():
            return "text is empty"
        return "label is missing" if "label" in example and example["label"] is None else None

    def stratum(self, example: Example) -> str | None:
        return str(example["label"])

    def collect(self, examples: Iterable[Example]) -> Stats:
        return {"labels": dict(Counter(str(example["label"]) for example in examples))}

    def merge(self, stats: Sequence[Stats]) -> Stats:
        total: Counter[str] = Counter()
        for one in stats:
            total.update(one["labels"])
        return {"labels": dict(total)}

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        labels = sorted(stats["labels"])
        if len(labels) < 2:
            raise DataError(f"only the class {labels}")
        return {"labels": labels, "max_length": recipe.data.max_length or 100}

    def load_processor(self, recipe: Recipe, source: str | None = None) -> Any:
        return None

    def admit(self, example: Example, state: State) -> str | None:
        label = str(example["label"])
        return None if label in state["labels"] else f"label {label!r} is not among the labels of the training data"

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        labels = preprocessing.state["labels"]
        found = []
        for example in examples:
            if "☠" in example["text"]:
                raise DataError("text is poisonous")
            codes = np.array([ord(c) for c in example["text"][: preprocessing.state["max_length"]]], dtype=np.int32)
            square = np.outer(codes[:3], codes[:2]).astype(np.uint16)
            target = labels.index(str(example["label"]))
            values = {"codes": codes, "square": square, "mask": codes > 99, "share": len(codes) / 100, "labels": target}
            found.append(Features(values, length=len(codes)))
        return found


@pytest.fixture
def letters() -> Any:
    """The task."""
    return Letters()


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Makes a recipe over files in the temporary folder: ``recipe(train="a.csv", columns={...})``."""

    def make(**data: Any) -> Recipe:
        values = {
            "task": "text-classification",
            "model": {"model_name_or_path": "none"},
            "data": data,
            "training": {"eval_strategy": "no"},
        }
        return Recipe.from_dict(values, base_dir=tmp_path, check_paths=False)

    return make


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """200 short reviews of 2 classes, by 20 customers over 200 days, as CSV."""
    rng = np.random.default_rng(1)
    lines = ["review,stars,customer,day"]
    for index in range(200):
        words = " ".join(rng.choice(["good", "bad", "fine", "poor", "great"], size=rng.integers(1, 8)))
        lines.append(
            f"{words} {index},{'12'[index % 3 == 0]},c{rng.integers(20)},2026-{index // 28 + 1:02d}-{index % 28 + 1:02d}"
        )
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
