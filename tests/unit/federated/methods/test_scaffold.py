"""SCAFFOLD's variates are those of the paper's option II for plain SGD, and mean gradients for any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.recipe.federation import FederationSection
from tunesmith_federated.methods import make_method
from tunesmith_federated.methods.base import Combined
from tunesmith_federated.protocol import Tensors

pytestmark = pytest.mark.unit

SCAFFOLD = make_method(FederationSection(method="scaffold"))
STEPS, RATE = 7, 0.05


def variate(seed: int, size: int = 3) -> Tensors:
    return {"weight": torch.from_numpy(np.random.default_rng(seed).normal(size=(1, size)).astype(np.float32))}


def trained(
    make: Callable[..., torch.optim.Optimizer], sent: Tensors, own: Tensors, seed: int = 0
) -> tuple[Tensors, Tensors, list[Any], Any]:
    """A site's round on least squares: the start, the end, the uncorrected gradient of each step, and what was finished."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 1, bias=False)
    x, y = torch.randn(STEPS, 8, 3), torch.randn(STEPS, 8, 1)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    local = SCAFFOLD.local(start, sent, own)
    assert local.gradient is not None
    optimizer, gradients = make(model.parameters(), lr=RATE), []
    for k in range(STEPS):
        optimizer.zero_grad()
        (model(x[k]) - y[k]).square().mean().backward()
        assert model.weight.grad is not None
        gradients.append(model.weight.grad.numpy().copy())
        local.gradient(model)
        optimizer.step()
    end = {name: value.detach().clone() for name, value in model.named_parameters()}
    return start, end, gradients, local.finish(end, STEPS)


def test_a_step_goes_along_the_gradient_corrected_by_c_minus_c_i() -> None:
    c, own = variate(1), variate(2)
    start, end, gradients, _ = trained(torch.optim.SGD, c, own)
    path = start["weight"].numpy() - RATE * sum(g + c["weight"].numpy() - own["weight"].numpy() for g in gradients)
    np.testing.assert_allclose(end["weight"].numpy(), path, rtol=1e-5, atol=1e-6)


def test_the_new_variate_is_option_ii_for_plain_sgd() -> None:
    c, own = variate(1), variate(2)
    start, end, _, finished = trained(torch.optim.SGD, c, own)
    option = own["weight"] - c["weight"] + (start["weight"] - end["weight"]) / (STEPS * RATE)
    torch.testing.assert_close(finished.own["weight"], option, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(finished.extras["weight"], option - own["weight"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_the_new_variate_is_the_mean_uncorrected_gradient_whatever_the_optimizer(make: Any) -> None:
    c, own = variate(1), variate(2)
    _, _, gradients, finished = trained(make, c, own)
    np.testing.assert_allclose(finished.own["weight"].numpy(), np.mean(gradients, axis=0), rtol=1e-5, atol=1e-6)


def test_the_first_round_corrects_nothing() -> None:
    zero = SCAFFOLD.broadcast(SCAFFOLD.begin({"weight": torch.ones(1, 3, dtype=torch.bfloat16)}))
    assert zero["weight"].dtype == torch.float32
    _, end, _, _ = trained(torch.optim.SGD, zero, {})
    _, plain, _, _ = trained(torch.optim.SGD, {}, {})
    assert torch.equal(end["weight"], plain["weight"])


def test_a_parameter_that_is_frozen_keeps_its_variate() -> None:
    model = torch.nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    sent = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    own = {name: torch.ones_like(value) for name, value in model.named_parameters()}
    local = SCAFFOLD.local({}, sent, own)
    model(torch.ones(2, 3)).sum().backward()
    assert local.gradient is not None
    local.gradient(model)
    finished = local.finish({}, 1)
    assert finished.own["bias"].tolist() == [1.0]
    assert finished.extras["bias"].tolist() == [0.0]
    assert finished.own["weight"].tolist() == [[2.0, 2.0, 2.0]]
    assert set(finished.extras) == set(sent)


def test_the_servers_variate_moves_by_the_share_of_the_sites() -> None:
    state, change = variate(3), variate(4)
    parameters, update = variate(5), variate(6)
    model, after = SCAFFOLD.step(parameters, Combined(update, change, 0.2), state)
    torch.testing.assert_close(after["weight"], state["weight"] + 0.2 * change["weight"])
    torch.testing.assert_close(model["weight"], parameters["weight"] + update["weight"])


def test_drift_that_fedavg_cannot_leave_behind_is_corrected() -> None:
    """Two sites with quadratics of other curvature: FedAvg stops beside the optimum, SCAFFOLD goes to it (theorem III)."""
    curve, best = np.array([1.0, 10.0]), np.array([4.0, -1.0])
    optimum = (curve * best).sum() / curve.sum()

    def run(name: str) -> float:
        chosen = make_method(FederationSection(method=name))
        model: Tensors = {"weight": torch.zeros(1, 1)}
        state, kept = chosen.begin(model), [dict[str, torch.Tensor](), dict[str, torch.Tensor]()]
        for _ in range(60):
            updates, changes = [], []
            for site in (0, 1):
                layer = torch.nn.Linear(1, 1, bias=False)
                layer.load_state_dict(model)
                local = chosen.local(model, chosen.broadcast(state), kept[site])
                optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
                for _ in range(10):
                    optimizer.zero_grad()
                    (0.5 * curve[site] * (layer.weight - best[site]).square()).sum().backward()
                    if local.gradient is not None:
                        local.gradient(layer)
                    optimizer.step()
                end = {"weight": layer.weight.detach()}
                finished = local.finish(end, 10)
                kept[site] = finished.own
                updates.append(end["weight"] - model["weight"])
                changes.append(finished.extras)
            mean = {"weight": (updates[0] + updates[1]) / 2}
            extras = {key: (changes[0][key] + changes[1][key]) / 2 for key in changes[0]}
            model, state = chosen.step(model, Combined(mean, extras, 1.0), state)
        return abs(model["weight"].item() - optimum)

    assert run("scaffold") < 1e-3
    assert run("fedavg") > 0.3
