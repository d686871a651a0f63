"""What would end the first evaluation shows before the first update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.data import texts
from support.fits import losses, prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.errors import UserError
from tunesmith.training.fit import FitContext, fit

pytestmark = pytest.mark.unit


def test_a_mistyped_metric_ends_training_before_its_first_update(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    recipe = recipe_for("text-classification", base, tmp_path / "a", metric_for_best_model="f1_makro", num_train_epochs=1)
    told: list[dict[str, Any]] = []

    with pytest.raises(UserError, match="no metric 'f1_makro'") as raised:
        fit(*prepare_in_memory(recipe, texts(80)), FitContext(event=told.append))

    assert "Did you mean 'f1_macro'?" in str(raised.value)
    assert [event["kind"] for event in told] == ["start"]


def test_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    common: dict[str, Any] = {"num_train_epochs": 1, "logging_steps": 1, "load_best_model_at_end": False}
    judged = recipe_for("text-classification", base, tmp_path / "a", **common)
    plain = recipe_for("text-classification", base, tmp_path / "b", eval_strategy="no", **common)

    one, other = (losses(fit(*prepare_in_memory(recipe, texts(80)), FitContext())) for recipe in (judged, plain))

    assert one == other
    assert len(one) > 5
