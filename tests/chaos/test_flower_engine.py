"""Flower's own simulation engine runs the same two apps to the same model, bit for bit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from support.data import texts
from support.engines import Case, run
from support.models import tiny_bert
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Four uneven sites, a BERT with dropout, two rounds of a method that sends tensors beside the update and keeps some."""
    tiny_bert(tmp_path / "base", dropout=0.1)
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id"])
        writer.writeheader()
        writer.writerows(texts(120))
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": str(tmp_path / "base")},
        "data": {"train": str(tmp_path / "reviews.csv")},
        "training": {"num_train_epochs": 2, "learning_rate": 1e-3, "output_dir": str(tmp_path / "runs"), "use_gpu": False},
        "federation": {
            "sites": 4,
            "partition": {"by": "dirichlet", "alpha": 1.0, "min_examples": 8},
            "method": "scaffold",
            "min_examples": 1,
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = Recipe.load(tmp_path / "recipe.yaml")
    prepared = prepare(loaded, load_task(loaded.task), output_dir=loaded.training.output_dir)
    return Case.make(tmp_path / "case", loaded, prepared.path)


def test_flowers_engine_and_ours_make_the_same_model_and_the_same_record(case: Case) -> None:
    flower, ours = run(case, "flower"), run(case, "ray")
    for one, other in zip(flower.tensors(), ours.tensors(), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert flower.standing == ours.standing
    assert set(flower.standing.judged) == {0, 1, 2}
    assert _timeless(flower) == _timeless(ours)
    assert {row["status"] for row in flower.rows()} == {"replied"}


def _timeless(book: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in book.rows()]
