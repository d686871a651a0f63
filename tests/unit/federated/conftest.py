"""One thread, since the models are tiny and other tests run beside these; a tiny BERT; updates in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from support.data import texts
from support.federation import federation_recipe
from support.models import tiny_bert

SGD = {"optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "linear", "per_device_train_batch_size": 8}
ROWS = texts(96, seed=3)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert") / "base")


@dataclass
class InMemory:
    """An update that was never on a disk, and knows how often it was read."""

    site: str
    examples: int
    held: Mapping[str, torch.Tensor]
    reads: int = 0

    def names(self) -> Sequence[str]:
        return list(self.held)

    def tensor(self, name: str) -> torch.Tensor:
        self.reads += 1
        return self.held[name].float()


@pytest.fixture
def in_memory() -> Callable[..., InMemory]:
    """``in_memory(site, examples, tensors)``."""
    return InMemory


@pytest.fixture
def recipe(bert: Path, tmp_path: Path) -> Any:
    return federation_recipe(bert, tmp_path / "recipe", {**SGD, "num_train_epochs": 3}, min_sites=2, sites=3)
