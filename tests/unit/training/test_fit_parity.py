"""The loop against its oracles: Transformers' Trainer, itself with other accumulation, other ranks, and after a resume."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.data import pictures, sentences, texts
from support.fits import Fitted, fitted, fitted_each, losses, on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_vit
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.training.checkpoint import Start, seed_update
from tunesmith.training.fit import FitContext, fit

TASKS = {
    "text-classification": (tiny_bert, texts),
    "token-classification": (tiny_bert, sentences),
    "image-classification": (tiny_vit, pictures),
}
SHARED: dict[str, Any] = {"learning_rate": 1e-3, "logging_steps": 1, "warmup_ratio": 0.2, "weight_decay": 0.01}


def case(name: str, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    model, rows = TASKS[name]
    return model(folder / "base"), rows(80)


def assert_same(one: Fitted, other: Fitted, tolerance: float = 2e-5) -> None:
    assert len(one[0]) == len(other[0])
    np.testing.assert_allclose(one[0], other[0], atol=tolerance, rtol=0)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=20 * tolerance, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", TASKS)
def test_accumulating_over_micro_batches_equals_one_batch(name: str, tmp_path: Path) -> None:
    base, rows = case(name, tmp_path)
    whole = recipe_for(name, base, tmp_path / "a", per_device_train_batch_size=16, num_train_epochs=2, **SHARED)
    pieces = recipe_for(
        name, base, tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=4, num_train_epochs=2, **SHARED
    )
    assert_same(fitted(FitContext(), whole, rows), fitted(FitContext(), pieces, rows))


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    alone, shared = [], []
    for name in TASKS:
        base, rows = case(name, tmp_path / name)
        alone.append(
            (recipe_for(name, base, tmp_path / name / "a", per_device_train_batch_size=16, num_train_epochs=2, **SHARED), rows)
        )
        shared.append(
            (recipe_for(name, base, tmp_path / name / "b", per_device_train_batch_size=8, num_train_epochs=2, **SHARED), rows)
        )
    first, second = on_ranks(2, fitted_each, shared)
    for (recipe, rows), zero, one in zip(alone, first, second, strict=True):
        assert_same(fitted(FitContext(), recipe, rows), zero)
        assert one[0] == [], "only rank 0 tells"
        for key, value in zero[1].items():
            np.testing.assert_array_equal(value, one[1][key])


def test_the_loss_curve_is_that_of_transformers_trainer(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    base, rows = case("text-classification", tmp_path)
    recipe = recipe_for(
        "text-classification",
        base,
        tmp_path / "a",
        per_device_train_batch_size=8,
        num_train_epochs=3,
        batching="fixed",
        label_smoothing_factor=0.1,
        eval_strategy="no",
        load_best_model_at_end=False,
        **SHARED,
    )
    spec, data = prepare_in_memory(recipe, rows)
    orders: list[int] = []

    def planner(epoch: int) -> Any:
        order = np.random.default_rng(epoch).permutation(len(data.train)).astype(np.int64)
        orders.extend(order.tolist())
        return [[(chunk,)] for chunk in np.split(order, len(order) // 8)]

    ours = fit(spec, data, FitContext(planner=planner))
    orders = orders[len(data.train) :]  # the first call only asked for the number of updates

    model = spec.task.build_model(recipe, spec.preprocessing.state)
    torch.manual_seed(recipe.training.seed)
    model = spec.task.build_model(recipe, spec.preprocessing.state)

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return iter_sampler

    class Sampler(torch.utils.data.Sampler[int]):
        epoch = 0

        def __iter__(self) -> Any:
            n = len(data.train)
            start = self.epoch * n
            self.epoch += 1
            return iter(orders[start : start + n])

        def __len__(self) -> int:
            return len(data.train)

    iter_sampler = Sampler()
    trainer = InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path / "hf"),
            per_device_train_batch_size=8,
            num_train_epochs=3,
            learning_rate=SHARED["learning_rate"],
            warmup_steps=round(SHARED["warmup_ratio"] * 24),
            weight_decay=SHARED["weight_decay"],
            label_smoothing_factor=0.1,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=[data.train.features([i])[0] for i in range(len(data.train))],
        data_collator=lambda features: spec.task.collate(features, spec.preprocessing),
    )
    trainer.train()
    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(theirs) == 24
    np.testing.assert_allclose(_without_smoothing_gap(losses(ours)), theirs, atol=2e-4)


def _without_smoothing_gap(values: list[float]) -> list[float]:
    """Both report the smoothed loss; Trainer rounds its log to four digits."""
    return [round(value, 4) for value in values]


class Interrupted(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("batching", ["tokens", "fixed"])
def test_a_run_resumed_within_an_epoch_equals_an_uninterrupted_one(batching: str, tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.1)
    rows = texts(80)
    recipe = recipe_for(
        "text-classification",
        base,
        tmp_path / "a",
        per_device_train_batch_size=8,
        num_train_epochs=3,
        batching=batching,
        save_steps=3,
        **SHARED,
    )
    kept = tmp_path / "kept"

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if metrics["step"] <= 12 and folder is not None:
            shutil.copytree(folder, kept, dirs_exist_ok=True)
        if metrics["step"] > 12:
            raise Interrupted

    whole = fitted(FitContext(report=lambda *_: None), recipe, rows)
    with pytest.raises(Interrupted):
        fitted(FitContext(report=report), recipe, rows)
    resumed = fitted(FitContext(start=Start(kept), report=lambda *_: None), recipe, rows)
    assert len(resumed[0]) == len(whole[0]) - 12, "it goes on in the middle of epoch 2"
    assert_same((whole[0][12:], whole[1]), resumed, tolerance=0)


def test_a_perturbed_start_keeps_moments_and_takes_the_new_learning_rate(tmp_path: Path) -> None:
    base, rows = case("text-classification", tmp_path)
    settings = {**SHARED, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    recipe = recipe_for(
        "text-classification", base, tmp_path / "a", max_steps=4, eval_strategy="no", load_best_model_at_end=False, **settings
    )
    kept = tmp_path / "kept"
    spec, data = prepare_in_memory(recipe, rows)
    fit(spec, data, FitContext(report=lambda _, folder: shutil.copytree(folder, kept)))  # type: ignore[arg-type, func-returns-value]
    other = recipe_for(
        "text-classification",
        base,
        tmp_path / "b",
        max_steps=6,
        eval_strategy="no",
        load_best_model_at_end=False,
        **{**settings, "learning_rate": 5e-4},
    )
    spec, data = prepare_in_memory(other, rows)
    result = fit(spec, data, FitContext(start=Start(kept, mode="perturbed")))
    told = [event for event in result.history if event["kind"] == "step"]
    assert [event["step"] for event in told] == [5, 6]
    assert told[0]["learning_rate"] == pytest.approx(5e-4)


def test_every_example_brings_the_same_loss_bucketed_or_alone(tmp_path: Path) -> None:
    base, rows = case("text-classification", tmp_path)
    recipe = recipe_for("text-classification", base, tmp_path / "a")
    spec, data = prepare_in_memory(recipe, rows)
    model = spec.task.build_model(recipe, spec.preprocessing.state).eval()

    def summed(indices: list[int]) -> float:
        with torch.no_grad():
            loss, count = spec.task.loss(
                model, spec.task.collate(data.train.features(indices), spec.preprocessing), CrossEntropy()
            )
        assert count == len(indices)
        return float(loss)

    everything = list(range(len(data.train)))
    assert summed(everything) == pytest.approx(sum(summed([i]) for i in everything), abs=1e-3)


def test_an_update_draws_what_seeding_every_device_would_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", others.append)
    for step in (0, 1, 10**6):
        seed_update(42, step, 1, torch.device("cpu"))
        assert not others, "no word for devices that nobody trains on"
        here = torch.rand(5), torch.get_rng_state(), np.random.rand(), random.random()  # noqa: NPY002
        seed_update(42, step, 1, torch.device("cuda"))
        seed, there = others.pop(), (torch.rand(5), torch.get_rng_state(), np.random.rand(), random.random())  # noqa: NPY002
        assert here[0].equal(there[0])
        assert here[1].equal(there[1])
        assert here[2:] == there[2:]
        torch.manual_seed(seed)
        assert others.pop() == seed
        assert torch.rand(5).equal(here[0])
