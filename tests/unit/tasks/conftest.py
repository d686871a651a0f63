"""One thread, for the models are tiny and other tests run beside these; and every task with its data prepared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from support.cases import CASES
from support.conformance import Made
from tunesmith.data.prepare import prepare
from tunesmith.tasks import load_task


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(case.id)
    recipe = case.recipe(folder)
    task = load_task(recipe.task)
    return Made(case, recipe, task, prepare(recipe, task, output_dir=recipe.training.output_dir), folder)
