"""Engines over tiny models of every task."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from support.cases import CASES, Case, png, wav
from support.saved import saved
from support.served import Scripted, Service
from tunesmith.evaluation.predictor import Predictor
from tunesmith.recipe.serving import ServingSection
from tunesmith_serving.describe import describe
from tunesmith_serving.engine import Engine


@pytest.fixture(scope="module", autouse=True)
def no_task_dies_unseen() -> Iterator[None]:
    """Event loops tell of a task whose error nobody looked at when it is collected, long after the test that left it."""
    told: list[str] = []
    listener = logging.Handler(logging.ERROR)
    listener.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("asyncio")
    logger.addHandler(listener)
    yield
    gc.collect()
    logger.removeHandler(listener)
    assert not told


@dataclasses.dataclass
class Loaded:
    """A case with its model."""

    case: Case
    predictor: Predictor
    folder: str

    def engine(self, name: str = "", **settings: Any) -> Engine:
        """An engine over the saved artefact. Lives in the event loop that asks it first."""
        return Engine.load(self.folder, name or self.case.id, settings=ServingSection(**settings))

    def inputs(self, n: int, seed: int = 7) -> list[dict[str, Any]]:
        """Inputs as the wire has them: pictures and sounds as the bytes of their files."""
        target = self.predictor.task.target
        rows = [
            {role: value for role, value in row.items() if role in self.predictor.task.columns} for row in self.case.rows(n)
        ]
        return [{role: _bytes(value, role) for role, value in row.items() if role != target} for row in rows]


def _bytes(value: Any, role: str) -> Any:
    if role == "image":
        return png(value)
    if role == "audio":
        return value if isinstance(value, bytes) else wav(value)
    return value


@pytest.fixture(scope="session", params=list(CASES))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Every task in turn."""
    return _load(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Text classification alone."""
    return _load("text", tmp_path_factory)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Image classification alone."""
    return _load("vit", tmp_path_factory)


def _load(name: str, factory: pytest.TempPathFactory) -> Loaded:
    case = CASES[name]
    predictor, folder = saved(case, factory.mktemp(name))
    return Loaded(case, predictor, folder)


@pytest.fixture
def service(text: Loaded, tmp_path: Any) -> Service:
    """The door before a text classifier."""
    return Service(tmp_path, text.engine())


def scripted(text: Loaded, answers: Any) -> Scripted:
    """A text classifier that answers as it is told."""
    task = text.predictor.task
    return Scripted(describe(task, text.predictor.preprocessing.state, "text", "1"), answers)
