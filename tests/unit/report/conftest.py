from __future__ import annotations

import pytest

from support.runs import finished_run
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.runs import Run


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Evaluation]:
    """A finished image classification whose base model had the same labels, and its verdict."""
    settings = {"bootstrap_samples": 100, "slices": ["scanner"], "max_examples": 3}
    folder = tmp_path_factory.mktemp("images")
    run = finished_run(folder, "image-classification", base_labels=True, evaluation=settings)
    return run, evaluate_run(run)
