"""L2-SP is alpha/2 · ‖w - w⁰‖² over what the base brings, and beta/2 · ‖w‖² over the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.data import texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.training.base_weights import base_weights
from tunesmith.training.fit import FitSpec, fit
from tunesmith.training.l2_sp import L2SP, make_l2_sp


def spec_for(tmp_path: Path, labels: list[str] | None = None, **training: float) -> FitSpec:
    base = tiny_bert(tmp_path / "base", labels=labels)
    spec, _ = prepare_in_memory(recipe_for("text-classification", base, tmp_path / "a", **training), texts(40))
    return spec


def test_the_penalty_and_its_gradient_are_those_of_the_paper(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, l2_sp=0.3, l2_sp_head=0.7)
    model = spec.task.build_model(spec.recipe, spec.preprocessing.state)
    penalty = make_l2_sp(spec, model)
    assert penalty is not None
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    head = {"classifier.weight", "classifier.bias"}
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    value = penalty(model)
    value.backward()  # type: ignore[no-untyped-call]  # torch
    moved = sum(float((p.detach() - start[n]).square().sum()) for n, p in model.named_parameters() if n not in head)
    own = sum(float(p.detach().square().sum()) for n, p in model.named_parameters() if n in head)
    assert value.item() == pytest.approx(0.3 / 2 * moved + 0.7 / 2 * own, rel=1e-5)
    for name, parameter in model.named_parameters():
        wanted = 0.7 * parameter if name in head else 0.3 * (parameter - start[name])
        torch.testing.assert_close(parameter.grad, wanted.detach(), atol=1e-6, rtol=1e-5)


def test_a_head_that_was_kept_is_pulled_to_the_base_too(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, labels=["high", "low"], l2_sp=0.3)
    model = spec.task.build_model(spec.recipe, spec.preprocessing.state)
    penalty = make_l2_sp(spec, model)
    assert penalty is not None
    assert set(penalty.reference) == {name for name, _ in model.named_parameters()}


def test_a_fresh_head_is_no_part_of_the_base_not_even_its_bias(tmp_path: Path) -> None:
    spec = spec_for(tmp_path)
    weights = base_weights(spec.task, spec.recipe, spec.preprocessing.state)
    model = spec.task.build_model(spec.recipe, spec.preprocessing.state)
    missing = {name for name, _ in model.named_parameters()} - set(weights)
    assert missing == {"classifier.weight", "classifier.bias"}


def test_a_frozen_parameter_brings_nothing() -> None:
    model = torch.nn.Linear(2, 2)
    reference = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    model.weight.requires_grad_(False)
    assert L2SP(2.0, 0.0, reference)(model).item() == pytest.approx(model.bias.square().sum().item())


def test_a_strong_pull_keeps_the_trunk_where_it_was(tmp_path: Path) -> None:
    def moved(alpha: float) -> float:
        folder = tmp_path / f"{alpha}"
        base = tiny_bert(folder / "base")
        recipe = recipe_for(
            "text-classification", base, folder / "a", l2_sp=alpha, learning_rate=0.05, optim="sgd", max_grad_norm=0
        )
        spec, data = prepare_in_memory(recipe, texts(80))
        weights = base_weights(spec.task, recipe, spec.preprocessing.state)
        state = fit(spec, data).model.state_dict()
        return sum(float((state[name] - value).square().sum()) for name, value in weights.items())

    assert moved(10.0) < 0.5 * moved(0.0)
