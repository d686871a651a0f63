"""Each method does what its paper's formula says, written out here by hand in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.errors import UserError
from tunesmith.recipe.federation import METHODS, FederationSection
from tunesmith_federated.methods import PATHS, make_method
from tunesmith_federated.methods.base import Combined, Method
from tunesmith_federated.protocol import Tensors

pytestmark = pytest.mark.unit

Arrays = dict[str, Any]
SHAPES = {"layer.weight": (3, 2), "layer.bias": (3,)}


def drawn(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def tensors(arrays: Arrays) -> Tensors:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def method(name: str, **settings: Any) -> Method:
    return make_method(FederationSection(method=name, **settings))


def rounds(chosen: Method, start: Arrays, updates: list[Arrays], share: float = 1.0) -> tuple[Tensors, Tensors]:
    model, state = tensors(start), chosen.begin(tensors(start))
    for update in updates:
        model, state = chosen.step(model, Combined(tensors(update), {}, share), state)
    return model, state


def agree(found: Tensors, wanted: Arrays) -> None:
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), array, rtol=2e-6, atol=2e-7)


def test_every_method_of_the_recipe_can_be_made_and_knows_its_name() -> None:
    assert tuple(PATHS) == METHODS
    assert [method(name).name for name in METHODS] == list(METHODS)
    assert {name for name in METHODS if method(name).combine == "median"} == {"median"}
    assert {name for name in METHODS if method(name).keeps} == {"scaffold", "fedbn"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fed-avgm", "did you mean fedavgm?"),
        ("zzz", "write one of fedavg, fedavgm"),
        ("no_such_module:Method", "cannot be imported"),
        ("tunesmith_federated.methods.fedavg:Nothing", "has no Nothing"),
        ("tunesmith_federated.protocol:_Words", "made of the federation: section alone"),
        ("builtins:repr", "it has no name, combine"),
    ],
)
def test_what_is_no_method_is_refused_with_what_to_write(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        method(name)


def test_a_method_of_ones_own_is_made_by_its_path() -> None:
    assert method("tunesmith_federated.methods.fedavg:FedAvg").name == "fedavg"


@pytest.mark.parametrize(
    ("name", "rate"), [("fedavg", None), ("fedavg", 0.5), ("fedbn", 0.5), ("fedprox", None), ("median", 0.5)]
)
def test_the_server_goes_along_the_update(name: str, rate: float | None) -> None:
    start, update = drawn(0), drawn(1)
    found, state = rounds(method(name, server_learning_rate=rate), start, [update])
    agree(found, {key: start[key] + (rate or 1.0) * update[key] for key in start})
    assert state == {}


def test_fedavgm_is_momentum_over_rounds() -> None:
    start, updates, beta, rate = drawn(0), [drawn(k, 0.1) for k in (1, 2, 3)], 0.7, 0.5
    found, state = rounds(method("fedavgm", server_momentum=beta, server_learning_rate=rate), start, updates)
    w, v = dict(start), {name: np.zeros_like(array) for name, array in start.items()}
    for update in updates:
        v = {name: beta * v[name] + update[name] for name in v}
        w = {name: w[name] + rate * v[name] for name in w}
    agree(found, w)
    agree(state, v)
    plain, _ = rounds(method("fedavgm", server_momentum=0.0), start, updates)
    agree(plain, {name: start[name] + sum(update[name] for update in updates) for name in start})


def test_fedadam_is_algorithm_2_over_rounds() -> None:
    start, updates, (b1, b2), tau = drawn(0), [drawn(k, 0.01) for k in (1, 2, 3)], (0.8, 0.95), 1e-2
    found, _ = rounds(method("fedadam", server_beta1=b1, server_beta2=b2, server_tau=tau), start, updates)
    w = {name: array.astype(np.float64) for name, array in start.items()}
    m, v = {name: 0 * array for name, array in w.items()}, {name: 0 * array + tau**2 for name, array in w.items()}
    for update in updates:
        m = {name: b1 * m[name] + (1 - b1) * update[name] for name in m}
        v = {name: b2 * v[name] + (1 - b2) * update[name] ** 2 for name in v}
        w = {name: w[name] + 0.01 * m[name] / (np.sqrt(v[name]) + tau) for name in w}
    agree(found, w)


def test_the_next_model_has_the_dtypes_of_the_last_and_statistics_are_averaged_whatever_the_method() -> None:
    start = {
        "w": torch.ones(2, dtype=torch.bfloat16),
        "bn.running_var": torch.tensor([1.0, 2.0]),
        "bn.num_batches_tracked": torch.tensor(10),
        "buffer": torch.tensor([3, 4]),
        "untouched": torch.tensor([7.0]),
    }
    update = {
        "w": torch.tensor([0.5, -0.5]),
        "bn.running_var": torch.tensor([-0.75, 0.5]),
        "bn.num_batches_tracked": torch.tensor(2.4),
        "buffer": torch.tensor([1.2, -0.9]),
    }
    for name in METHODS:
        chosen = method(name, server_learning_rate=0.25)
        model, _ = chosen.step(start, Combined(update, {}, 1.0), chosen.begin(start))
        assert {key: value.dtype for key, value in model.items()} == {key: value.dtype for key, value in start.items()}
        assert model["bn.running_var"].tolist() == [0.25, 2.5], name
        assert model["bn.num_batches_tracked"].item() == 12
        assert model["untouched"].item() == 7.0
    assert model["buffer"].tolist() == [3, 4]  # 0.25 of 1.2 and of -0.9, rounded
    assert start["w"].tolist() == [1.0, 1.0]


def test_fedprox_adds_half_mu_times_the_squared_distance_of_what_is_trained() -> None:
    model, start = torch.nn.Linear(2, 3), drawn(5)
    sent = {name.removeprefix("layer."): tensor for name, tensor in tensors(start).items()}
    model.bias.requires_grad_(False)
    local = method("fedprox", proximal_mu=0.3).local(sent, {}, {})
    assert local.objective is not None
    assert local.gradient is None
    term = local.objective(model)
    term.backward()  # type: ignore[no-untyped-call]
    distance = model.weight.detach().numpy() - start["layer.weight"]
    np.testing.assert_allclose(term.item(), 0.15 * (distance**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(model.weight.grad, 0.3 * distance, rtol=1e-6)
    assert model.bias.grad is None
    wrapped = torch.nn.Module()
    wrapped.module = model  # as DDP names it
    assert local.objective(wrapped).item() == term.item()
    finished = local.finish({}, 3)
    assert finished.extras == finished.own == {}
