"""Recipes on disk, written by the test that reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe

SOUND = """\
task: text-classification
model:
  model_name_or_path: google-bert/bert-base-uncased
data:
  train: train.csv
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a recipe, beside a ``train.csv``, into the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\ngood,yes\n")

    def write(more: str = "", *, head: str = SOUND, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + more, encoding="utf-8")
        return Path(name)

    return write


@pytest.fixture
def mistakes(write: Callable[..., Path]) -> Callable[..., list[str]]:
    """The mistakes of a recipe made of the sound one and more lines, each as it is printed."""

    def mistakes(more: str = "", *overrides: str, head: str = SOUND) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            Recipe.load(write(more, head=head), overrides)
        return [str(mistake) for mistake in caught.value.mistakes]

    return mistakes
