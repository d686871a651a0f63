"""Every task in the loop: its loss, its training on one rank and two, and what it answers afterwards."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from support.cases import CASES
from support.conformance import Made, close, inputs_only
from support.fits import fitted_prepared, losses, on_ranks
from tunesmith.data.prepare import prepare
from tunesmith.evaluation.predictor import Predictor
from tunesmith.tasks import load_task
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.training.checkpoint import save_model
from tunesmith.training.fit import FitContext

pytestmark = pytest.mark.unit


# Loss and training


def test_the_loss_is_a_sum_over_units_with_a_graph(made: Made) -> None:
    model, indices = made.fresh(), list(range(8))
    loss, count = made.task.loss(model, made.batch(indices), CrossEntropy())
    assert loss.shape == ()
    assert count == int(made.train.counts[indices].sum()) == sum(one.count for one in made.train.features(indices))
    assert 0 < loss.item() < math.inf
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "DDP waits for every parameter"


def test_an_exact_loss_does_not_depend_on_how_a_batch_is_cut(made: Made) -> None:
    model = made.fresh()
    with torch.no_grad():
        whole = float(made.task.loss(model, made.batch(range(12)), CrossEntropy())[0])
        parts = [float(made.task.loss(model, made.batch(part), CrossEntropy())[0]) for part in (range(5), [5], range(6, 12))]
    if made.task.exact:
        assert sum(parts) == pytest.approx(whole, rel=1e-4)
    else:
        assert abs(sum(parts) - whole) > 1e-4 * whole, "declared inexact, and is exact"


def test_training_lowers_the_loss(made: Made) -> None:
    told = losses(made.fitted)
    assert len(told) == 24
    assert np.mean(told[-4:]) < 0.8 * np.mean(told[:4])


@pytest.mark.timeout(300)
def test_fitting_on_two_ranks_equals_one(tmp_path: Path) -> None:
    """All tasks in one group of processes, which costs more to start than they take.

    By plain descent: Adam turns the rounding errors of gradients that are zero (an attention key's bias) into steps.
    """
    shared = {}
    for name, case in CASES.items():
        recipe = case.recipe(
            tmp_path / name, per_device_train_batch_size=4, num_train_epochs=1, optim="sgd", learning_rate=0.03
        )
        prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir)
        shared[name] = recipe
    zero, one = on_ranks(2, fitted_prepared, list(shared.values()))
    for (name, recipe), (losses_of_zero, tensors, metrics), (_, others, other_metrics) in zip(
        shared.items(), zero, one, strict=True
    ):
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(tensor, others[key], err_msg=f"{name}: {key} differs between ranks")
        assert metrics == other_metrics, f"{name}: both ranks judge alike"
        assert all(map(math.isfinite, losses_of_zero)), name
        alone = recipe.override("training.per_device_train_batch_size=8")
        if CASES[name].cut_freely:
            ((curve, single, judged),) = fitted_prepared(FitContext(), [alone])
            np.testing.assert_allclose(losses_of_zero, curve, atol=5e-5, rtol=1e-4, err_msg=name)
            for key, tensor in single.items():
                np.testing.assert_allclose(tensors[key], tensor, atol=1e-5, rtol=1e-4, err_msg=f"{name}: {key}")
            assert judged["loss"] == pytest.approx(metrics["loss"], rel=1e-3), name


# Answers


def test_what_is_saved_answers_as_what_was_in_memory(made: Made) -> None:
    folder = made.folder / "model"
    save_model(folder, made.fitted.model, made.task, made.preprocessing)
    inputs = inputs_only(made.task, made.examples)
    loaded = Predictor.load(folder, device="cpu")
    assert loaded.preprocessing.state == made.data.state
    close(loaded.predict(inputs), made.predictor.predict(inputs), 1e-6)


def test_a_base_that_answers_in_the_same_terms_is_judged_as_it_is_and_keeps_its_head(made: Made) -> None:
    assert Predictor.load_base(made.recipe, made.task, made.data.state) is None
    folder = made.folder / "base-of-the-next"
    save_model(folder, made.fitted.model, made.task, made.preprocessing)
    further = made.recipe.override(f"model.model_name_or_path={folder}")
    base = Predictor.load_base(further, made.task, made.data.state, device="cpu")
    assert base is not None
    inputs = inputs_only(made.task, made.examples)
    close(base.predict(inputs), made.predictor.predict(inputs), 1e-6)
    built = made.task.build_model(further, made.data.state)
    close(Predictor(made.task, built, made.preprocessing, device="cpu").predict(inputs), made.predictor.predict(inputs), 1e-6)


def test_answers_do_not_depend_on_the_batch(made: Made) -> None:
    inputs = inputs_only(made.task, made.examples)
    together = made.predictor.predict(inputs)
    alone = [made.predictor.predict([one])[0] for one in inputs]
    close(together, alone)
    close(made.predictor.predict(inputs[::-1]), together[::-1])


def test_answers_to_examples_with_a_target_are_the_same_and_plain(made: Made) -> None:
    answers = made.predictor.predict(made.examples)
    close(made.predictor.predict(inputs_only(made.task, made.examples)), answers, 0)
    assert json.loads(json.dumps(answers)) == answers
    assert all(made.case.said in answer for answer in answers)
    assert len({json.dumps(answer) for answer in answers}) == len(answers), "it tells examples apart"
