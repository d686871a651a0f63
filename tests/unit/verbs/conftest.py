from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith import storage
from tunesmith.recipe import Recipe
from tunesmith.runs import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a finished run, as training and evaluation leave it, in ``runs/`` of the test's folder."""
    storage.write_text(tmp_path / "train.csv", "text,label\na,x\nb,y\n")

    def make(
        name: str,
        accuracy: float = 0.9,
        loss: float = 0.25,
        status: str = "done",
        metrics: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Run:
        values = {
            "name": name,
            "task": "text-classification",
            "model": {"model_name_or_path": "owner/base"},
            "data": {"train": str(tmp_path / "train.csv")},
            "training": {"output_dir": str(tmp_path / "runs")},
        }
        run = Run.create(Recipe.from_dict(values), ["tunesmith", "train", "recipe.yaml"], str(tmp_path / "runs" / name))
        run.log_metrics({"step": 10, "split": "train", "loss": loss})
        estimate = {"value": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "n": 1200, "method": "wilson"}
        found = {"accuracy": estimate} if metrics is None else metrics
        baselines = {"majority class": {"metrics": {"accuracy": {**estimate, "value": 0.5, "low": 0.45, "high": 0.55}}}}
        verdict = {"headline": "accuracy", "split": "test", "test": {"n": 1200, "metrics": found, "baselines": baselines}}
        storage.write_json(run.file("metrics.json"), verdict)
        run.update(
            data={"train": {"hash": "d" * 32, "rows": 10_000, "source": "train.csv"}},
            split_hash="5" * 32,
            base_model={"name_or_path": "owner/base", "revision": "c0ffee", "hash": None},
            steps=1250,
            best={"step": 1000, "metric": "accuracy", "value": 0.95},
            durations={"prepare": 1.5, "train": 75.0},
        )
        run.update(**fields)
        run.set_status(status)  # type: ignore[arg-type]
        run.lock().release()
        return run

    return make
