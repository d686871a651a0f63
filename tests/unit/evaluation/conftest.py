from __future__ import annotations

import pytest

from support.runs import finished_run
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.runs import Run

QUICK = {"bootstrap_samples": 100, "slices": ["scanner"], "max_examples": 3}


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished text classification whose base model had the same labels."""
    folder = tmp_path_factory.mktemp("text")
    return finished_run(folder, "text-classification", base_labels=True, evaluation=QUICK)


@pytest.fixture(scope="session")
def text_evaluation(text_run: Run) -> Evaluation:
    """Its verdict."""
    return evaluate_run(text_run)
