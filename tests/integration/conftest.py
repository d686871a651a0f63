"""One training on the shared Ray, for all tests that look at what it leaves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.data import texts
from support.models import tiny_bert
from tunesmith.runs import Run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe for two workers, 400 reviews from two shops, and a tiny BERT."""
    folder = tmp_path_factory.mktemp("project")
    tiny_bert(folder / "base", dropout=0.1)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "id", "shop"])
        writer.writeheader()
        writer.writerows({**row, "shop": "ab"[row["id"] % 2]} for row in texts(400))
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "reviews.csv", "split": {"validation": 0.15, "test": 0.25}},
        "training": {
            "output_dir": str(folder / "runs"),
            "num_workers": 2,
            "num_train_epochs": 2,
            "learning_rate": 3e-3,
            "logging_steps": 5,
            "save_steps": 10,
        },
        "evaluation": {"slices": ["shop"]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="session")
def trained(project: Path, ray_head: Any) -> Run:
    """``tunesmith.train`` of that recipe, from Python."""
    import tunesmith

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_head.environment.items():
            patch.setenv(name, value)
        return tunesmith.train(str(project / "recipe.yaml"), on=ray_head.address)
