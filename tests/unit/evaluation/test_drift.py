"""Linear CKA is Kornblith's, and the states it compares do not depend on padding or on the target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from support.data import MemorySplit, pictures, sentences, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_resnet, tiny_vit
from tunesmith.evaluation.drift import bare, hidden_states, linear_cka, pooled, representation
from tunesmith.evaluation.predictor import Predictor

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "d", "k"), [(60, 5, 8), (12, 40, 30)])
def test_it_is_the_formula_from_features_and_from_gram_matrices(n: int, d: int, k: int) -> None:
    x, y = RNG.normal(size=(n, d)), RNG.normal(size=(n, k))
    a, b = x - x.mean(0), y - y.mean(0)
    wanted = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(wanted)


def test_turning_shifting_and_scaling_change_nothing() -> None:
    x = RNG.normal(size=(50, 6))
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert linear_cka(x, 3 * x @ turn + 2) == pytest.approx(1.0)
    assert linear_cka(x, RNG.normal(size=(50, 6))) < 0.3


def test_there_is_none_of_one_example_or_of_constants() -> None:
    assert np.isnan(linear_cka(np.ones((1, 3)), np.ones((1, 3))))
    assert np.isnan(linear_cka(np.ones((9, 3)), RNG.normal(size=(9, 3))))


def test_padding_is_left_out_of_the_mean() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert pooled(states, torch.tensor([[1, 1, 0]])).tolist() == [[2.0]]
    assert pooled(torch.ones(2, 4, 3, 3), None).shape == (2, 4)


@pytest.mark.parametrize(
    ("task", "base", "rows", "width"),
    [
        ("text-classification", tiny_bert, texts, 32),
        ("token-classification", tiny_bert, sentences, 32),
        ("image-classification", tiny_vit, pictures, 32),
        ("image-classification", tiny_resnet, pictures, 16),
    ],
)
def test_every_task_has_states_alone_as_in_a_batch(task, base, rows, width, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec, _ = prepare_in_memory(recipe_for(task, base(tmp_path / "base"), tmp_path / "a"), rows(40))
    model = spec.task.build_model(spec.recipe, spec.preprocessing.state)
    predictor = Predictor(spec.task, model, spec.preprocessing, device="cpu")
    split = MemorySplit(spec.task, rows(6, seed=3), spec.preprocessing)
    together = representation(predictor, split, np.arange(6))
    assert together.shape == (6, width)
    without = [{k: v for k, v in e.items() if k != spec.task.target} for e in split.examples(range(6))]
    for index, features in enumerate(spec.task.encode(without, spec.preprocessing)):
        np.testing.assert_allclose(hidden_states(predictor, [features])[0], together[index], atol=1e-5)


def test_the_targets_of_another_task_are_left_behind(tmp_path: Path) -> None:
    recipe = recipe_for("token-classification", tiny_bert(tmp_path / "base"), tmp_path / "a")
    spec, data = prepare_in_memory(recipe, sentences(40))
    model = spec.task.build_model(recipe, spec.preprocessing.state)
    predictor = Predictor(spec.task, model, spec.preprocessing, device="cpu")
    features = data.train.features([0, 1])
    kept = bare(predictor, data.train.examples([0])[0], features)
    assert "tags" in features[0].values
    assert "tags" not in kept[0].values
    assert kept[1].length == features[1].length
