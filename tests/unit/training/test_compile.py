"""``training.torch_compile``: the same losses, by few graphs; without a C++ compiler, which takes minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from support.data import texts
from support.fits import losses, prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.training.fit import FitContext, fit

pytestmark = pytest.mark.unit

SETTINGS: dict[str, Any] = {"max_steps": 6, "logging_steps": 1, "eval_strategy": "no", "load_best_model_at_end": False}


def test_a_compiled_model_learns_the_same_and_is_not_compiled_for_each_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    whole = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: whole(self, backend="eager", **options))
    torch._dynamo.reset()
    counters.clear()
    base = tiny_bert(tmp_path / "base")

    plain, compiled = (
        losses(
            fit(*prepare_in_memory(recipe_for("text-classification", base, tmp_path / "a", **more), texts(80)), FitContext())
        )
        for more in (SETTINGS, {**SETTINGS, "torch_compile": True})
    )

    assert compiled == pytest.approx(plain, abs=1e-6)
    assert counters["stats"]["unique_graphs"] <= 2, "one of the first batch's shape, one of any shape"
