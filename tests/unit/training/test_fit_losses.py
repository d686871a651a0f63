"""The loop with weights, other losses and balanced sampling: however an update is cut, on two ranks, and after a resume."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.data import pictures, sentences, texts
from support.fits import Fitted, drawn, fitted, fitted_and_drawn, losses, on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_vit
from tunesmith.recipe import Recipe
from tunesmith.tasks.losses import CrossEntropy, make_criterion
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext, fit

pytestmark = pytest.mark.unit

SHARED: dict[str, Any] = {
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "num_train_epochs": 2,
    "eval_strategy": "no",
    "load_best_model_at_end": False,
}


def several(n: int) -> list[dict[str, Any]]:
    """Texts with any number of labels."""
    return [
        {**row, "label": [name for name, held in (("low", row["label"] == "low"), ("long", len(row["text"]) > 90)) if held]}
        for row in texts(n)
    ]


CASES: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "text, weights": ("text-classification", tiny_bert, texts, {"class_weights": {"low": 6.0}, "label_smoothing_factor": 0.1}),
    "several, focal": ("text-classification", tiny_bert, several, {"loss": "focal", "class_weights": "inverse"}),
    "tags, effective": ("token-classification", tiny_bert, sentences, {"class_weights": "effective"}),
    "images, symmetric": ("image-classification", tiny_vit, pictures, {"loss": "symmetric_cross_entropy"}),
    "text, balanced": ("text-classification", tiny_bert, texts, {"sampling": "balanced"}),
    "tags, balanced": ("token-classification", tiny_bert, sentences, {"sampling": "balanced"}),
}


def case(name: str, folder: Path, **training: Any) -> tuple[Recipe, list[dict[str, Any]]]:
    task, model, rows, settings = CASES[name]
    base = folder / "base"
    return recipe_for(task, base if base.exists() else model(base), folder, **SHARED, **settings, **training), rows(56)


def assert_same(one: Fitted, other: Fitted, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(one[0], other[0], atol=tolerance, rtol=0)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=20 * tolerance, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_accumulating_over_micro_batches_equals_one_batch(name: str, tmp_path: Path) -> None:
    whole, rows = case(name, tmp_path, per_device_train_batch_size=16)
    pieces, _ = case(name, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    assert_same(fitted(FitContext(), whole, rows), fitted(FitContext(), pieces, rows))


def test_an_update_is_one_step_down_the_weighed_loss(tmp_path: Path) -> None:
    """Plain descent over all examples at once: the gradient is that of the weighed losses' sum over their number."""
    recipe, rows = case("text, weights", tmp_path, per_device_train_batch_size=64, max_steps=1, optim="sgd", max_grad_norm=0)
    spec, data = prepare_in_memory(recipe, rows)
    torch.manual_seed(recipe.training.seed)
    model = spec.task.build_model(recipe, spec.preprocessing.state).train()
    batch = spec.task.collate(data.train.features(range(40)), spec.preprocessing)
    criterion = make_criterion(recipe, spec.preprocessing.state)
    assert isinstance(criterion, CrossEntropy)
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    weighed = torch.nn.functional.cross_entropy(
        logits, batch["labels"], criterion.weights, reduction="none", label_smoothing=0.1
    )
    (weighed.sum() / 40).backward()  # type: ignore[no-untyped-call]
    result = fit(spec, data)
    for (name, before), after in zip(model.named_parameters(), result.model.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after, before - 1e-3 * before.grad, atol=1e-7, rtol=1e-5, msg=name)
    assert losses(result)[0] == pytest.approx(float(weighed.detach().mean()), rel=1e-5)


def uneven(n: int) -> list[dict[str, Any]]:
    rows = texts(6 * n)
    low, high = ([row for row in rows if row["label"] == label] for label in ("low", "high"))
    return low[: n - 16 - 4] + high[:4] + texts(16, seed=9)


def balanced(folder: Path, **training: Any) -> tuple[Recipe, list[dict[str, Any]]]:
    base = folder / "base"
    base = base if base.exists() else tiny_bert(base, dropout=0.1)
    settings = {**SHARED, "num_train_epochs": 3, "sampling": "balanced", "batching": "fixed", **training}
    return recipe_for("text-classification", base, folder, **settings), uneven(56)


def labels_of(rows: list[dict[str, Any]], indices: list[int]) -> Counter[str]:
    return Counter(str(rows[i]["label"]) for i in indices)


def test_two_ranks_equal_one_and_draw_what_one_draws(tmp_path: Path) -> None:
    folders = {name: tmp_path / str(number) for number, name in enumerate(CASES)}
    alone = [case(name, folder, per_device_train_batch_size=16) for name, folder in folders.items()]
    shared = [case(name, folder, per_device_train_batch_size=8) for name, folder in folders.items()]
    recipe, rows = balanced(tmp_path, per_device_train_batch_size=8)
    half, _ = balanced(tmp_path, per_device_train_batch_size=4)
    (first, zero), (second, one) = on_ranks(2, fitted_and_drawn, shared, half, rows)
    for (single, its_rows), of_zero, of_one in zip(alone, first, second, strict=True):
        assert_same(fitted(FitContext(), single, its_rows), of_zero)
        for key, value in of_zero[1].items():
            np.testing.assert_array_equal(value, of_one[1][key])
    here, _ = drawn(FitContext(), recipe, rows)
    assert len(here) == 120
    for epoch in range(3):
        both = [*zero[20 * epoch : 20 * (epoch + 1)], *one[20 * epoch : 20 * (epoch + 1)]]
        mine = here[40 * epoch : 40 * (epoch + 1)]
        assert labels_of(rows, mine) == labels_of(rows, both) == {"low": 20, "high": 20}
        assert Counter(mine) == Counter(both)


class Interrupted(Exception):
    """Stands for the death of the process."""


def test_a_run_resumed_within_an_epoch_draws_what_an_uninterrupted_one_draws(tmp_path: Path) -> None:
    recipe, rows = balanced(tmp_path, per_device_train_batch_size=8, save_steps=4)
    kept = tmp_path / "kept"

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if metrics["step"] > 8:
            raise Interrupted
        if folder is not None:
            shutil.copytree(folder, kept, dirs_exist_ok=True)

    whole, uninterrupted = drawn(FitContext(report=lambda *_: None), recipe, rows)
    with pytest.raises(Interrupted):
        drawn(FitContext(report=report), recipe, rows)
    rest, resumed = drawn(FitContext(start=Start(kept), report=lambda *_: None), recipe, rows)
    assert whole[8 * 8 :] == rest, "it goes on in the middle of the second epoch"
    assert labels_of(rows, whole[80:]) == {"low": 20, "high": 20}
    assert_same((uninterrupted[0][8:], uninterrupted[1]), resumed, tolerance=0)
