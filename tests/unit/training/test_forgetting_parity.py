"""The methods against forgetting give the same on two ranks as on one, accumulated as at once, resumed as in one go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.data import pictures, sentences, texts
from support.fits import on_ranks, recipe_for
from support.forgetting import Case, Outcome, fitted_with_old, numbers
from support.models import tiny_bert, tiny_vit
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext

ALL: dict[str, Any] = {
    "optim": "sgd",  # Adam would hide the scale of a penalty, and enlarge the noise of gradients that are zero
    "learning_rate": 0.05,
    "logging_steps": 1,
    "num_train_epochs": 2,
    "l2_sp": 0.1,
    "l2_sp_head": 0.05,
    "ema_decay": 0.9,
    "replay": {"share": 0.2},
}
TASKS: dict[str, Any] = {
    "text-classification": (tiny_bert, texts),
    "token-classification": (tiny_bert, sentences),
    "image-classification": (tiny_vit, pictures),
}


def case(name: str, folder: Path, **training: Any) -> Case:
    model, rows = TASKS[name]
    base = folder / "base"
    if not base.exists():
        model(base)
    return recipe_for(name, base, folder / f"r{len(list(folder.iterdir()))}", **ALL, **training), rows(64), rows(24, seed=9)


def assert_same(one: Outcome, other: Outcome, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(one[0], other[0], atol=tolerance, rtol=0)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=20 * tolerance, rtol=0, err_msg=name)
    for what in ("loss", "drop"):
        np.testing.assert_allclose(numbers(one[2], what), numbers(other[2], what), atol=20 * tolerance, rtol=0)
    gap, other_gap = (numbers(each[2], "gap", "validation") for each in (one, other))
    np.testing.assert_allclose(gap, other_gap, atol=20 * tolerance, rtol=0)


def test_accumulation_does_not_multiply_the_penalty(tmp_path: Path) -> None:
    whole = case("text-classification", tmp_path, per_device_train_batch_size=16)
    pieces = case("text-classification", tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    one, other = fitted_with_old(FitContext(), [whole, pieces])
    assert_same(one, other)


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    for name in TASKS:
        (tmp_path / name).mkdir()
    alone = [case(name, tmp_path / name, per_device_train_batch_size=16) for name in TASKS]
    shared = [case(name, tmp_path / name, per_device_train_batch_size=8) for name in TASKS]
    first, second = on_ranks(2, fitted_with_old, shared)
    for one, zero, other in zip(fitted_with_old(FitContext(), alone), first, second, strict=True):
        assert_same(one, zero)
        assert other[2] == [], "only rank 0 tells"
        for name, value in zero[1].items():
            np.testing.assert_array_equal(value, other[1][name])


class Interrupted(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("by", ["score", "drift"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(by: str, tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.1)
    settings = {**ALL, "num_train_epochs": 3, "save_steps": 3, "per_device_train_batch_size": 8}
    recipe = recipe_for("text-classification", base, tmp_path / "a", **settings)
    work = [(recipe, texts(80), texts(24, seed=9))]
    kept = tmp_path / "kept"

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if metrics["step"] > 12:
            raise Interrupted
        shutil.copytree(str(folder), kept, dirs_exist_ok=True)

    (whole,) = fitted_with_old(FitContext(report=lambda *_: None), work, by)
    with pytest.raises(Interrupted):
        fitted_with_old(FitContext(report=report), work, by)
    (resumed,) = fitted_with_old(FitContext(start=Start(kept), report=lambda *_: None), work, by)

    assert resumed[0] == whole[0][12:], "it goes on in the middle of epoch 2"
    for name, value in whole[1].items():
        np.testing.assert_array_equal(value, resumed[1][name], err_msg=name)
    later = [line for line in whole[2] if line["step"] > 12]
    for line, again in zip(later, resumed[2], strict=True):
        assert line.pop("gap", 0.0) == pytest.approx(again.pop("gap", 0.0), abs=1e-6)
        assert repr(line) == repr(again), "text, for what is undefined equals itself there"
