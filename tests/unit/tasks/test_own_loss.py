"""A loss of the user's own: found beside the recipe or installed, called as it should be, and refused with the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.errors import UserError
from tunesmith.recipe import Recipe
from tunesmith.tasks.losses import CrossEntropy, check_criterion, make_criterion

pytestmark = pytest.mark.unit

STATE = {"labels": ["a", "b", "c"], "label_counts": [60, 5, 20]}
SEVERAL = {**STATE, "multi_label": True}
SOURCE = """
import torch
from torch.nn import functional

def plain(logits, targets, scale=1.0):
    return scale * functional.cross_entropy(logits, targets, reduction="none")

class Module(torch.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
    def forward(self, logits, targets):
        return plain(logits, targets, self.scale)

def averaged(logits, targets):
    return plain(logits, targets).mean()

def per_class(logits, targets):
    return logits ** 2

def detached(logits, targets):
    return plain(logits, targets).detach()

def number(logits, targets):
    return 1.0

def lonely(logits):
    return logits.sum(-1)

def binary(logits, targets):
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)

CONSTANT = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_losses_of_this_test.py").write_text(SOURCE)
    (tmp_path / "broken_of_this_test.py").write_text("1 / 0")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in ("own_losses_of_this_test", "broken_of_this_test"):
        sys.modules.pop(name, None)


def recipe(folder: Path, loss: str, **training: Any) -> Recipe:
    loss = loss.replace("own.", "own_losses_of_this_test.")
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": "a/b"},
        "data": {"train": "hf://a/b"},
        "training": {"loss": loss, **training},
    }
    return Recipe.from_dict(values, base_dir=folder)


@pytest.mark.parametrize("name", ["own.plain", "own.Module"])
def test_a_function_or_class_beside_the_recipe_with_its_arguments(folder: Path, name: str) -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    plain = CrossEntropy()(logits, targets)
    for arguments, scale in (({}, 1.0), ({"scale": 2.5}, 2.5)):
        made = recipe(folder, name, loss_args=arguments)
        check_criterion(made, STATE)
        torch.testing.assert_close(make_criterion(made, STATE)(logits, targets), scale * plain)


def test_one_that_is_installed(folder: Path) -> None:
    made = recipe(folder, "torch.nn.CrossEntropyLoss", loss_args={"reduction": "none"})
    check_criterion(made, STATE)
    with pytest.raises(UserError, match=r"a tensor of shape \[\] .*\n.*leave out .mean\(\)"):
        check_criterion(recipe(folder, "torch.nn.CrossEntropyLoss"), STATE)


def test_class_weights_multiply_it(folder: Path) -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    own = make_criterion(recipe(folder, "own.plain", class_weights={"b": 4}), STATE)
    named = make_criterion(recipe(folder, "cross_entropy", class_weights={"b": 4}), STATE)
    torch.testing.assert_close(own(logits, targets), named(logits, targets))


def test_several_classes_reach_it_as_numbers_but_cannot_be_weighed(folder: Path) -> None:
    check_criterion(recipe(folder, "own.binary"), SEVERAL)
    with pytest.raises(UserError, match="class_weights cannot be used with a loss of your own where an example has several"):
        check_criterion(recipe(folder, "own.binary", class_weights="inverse"), SEVERAL)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("own.averaged", {}, r"gives a tensor of shape \[\] for logits \[3, 3\]\n.*one loss for each unit.*reduction=\"none\""),
        ("own.per_class", {}, r"gives a tensor of shape \[3, 3\]"),
        ("own.number", {}, "gives float for logits"),
        ("own.detached", {}, "without a gradient"),
        ("own.lonely", {}, r"cannot be called as a loss: too many positional arguments\n.*takes logits and targets"),
        ("own.plain", {"scael": 2}, "cannot be called as a loss: .*scael"),
        ("own.Module", {"scael": 2}, "cannot be called as a loss: .*scael"),
        ("own.binary", {}, r"failed on logits \[3, 3\] and targets \[3\] torch.int64: ValueError"),
        ("own.CONSTANT", {}, "is int, not a function or class"),
        ("own.plian", {}, r"has no plian\n.*Did you mean own_losses_of_this_test.plain\?"),
        ("broken_of_this_test.x", {}, "cannot be imported: ZeroDivisionError: division by zero"),
        ("own.deeper.x", {}, "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_no_loss_is_refused_with_the_reason(folder: Path, name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_criterion(recipe(folder, name, loss_args=arguments), STATE)


def test_running_out_of_memory_is_not_the_losses_fault(folder: Path) -> None:
    made = make_criterion(recipe(folder, "own.plain"), STATE)
    with pytest.raises(RuntimeError, match="allocate memory") as caught:
        type(made)("own.x", _hungry)(torch.zeros(1, 3), torch.tensor([0]))  # type: ignore[call-arg]
    assert not isinstance(caught.value, UserError)


def _hungry(logits: Any, targets: Any) -> Any:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
