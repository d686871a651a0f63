"""What a site computes, on two ranks as in one process; and the seam behind which a site has it done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.data import texts
from support.federation import InMemory, federation_recipe
from support.fits import on_ranks
from support.models import tiny_bert
from tunesmith.training.fit import FitContext
from tunesmith_federated import asked_recipe
from tunesmith_federated.methods import make_method
from tunesmith_federated.models import tensors_of, travelling
from tunesmith_federated.protocol import Ask, Tensors
from tunesmith_federated.site import Site
from tunesmith_federated.work import Done, Here, Job, Order, perform

pytestmark = pytest.mark.unit

METHODS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedprox": {"method": "fedprox", "proximal_mu": 0.5},
    "scaffold": {"method": "scaffold"},
    "fedbn": {"method": "fedbn"},
}
ROWS = texts(90, seed=3)
Found = tuple[dict[str, np.ndarray], dict[str, Any], float | None]


def two_rounds(context: FitContext, recipes: Sequence[str], rows: list[dict[str, Any]]) -> list[Found]:
    """Under each recipe two rounds of one site, the second from what the first has left."""
    return [_two_rounds(context, Job(text), rows) for text in recipes]


def _two_rounds(context: FitContext, job: Job, rows: list[dict[str, Any]]) -> Found:
    held = InMemory(rows, 17, rows).open(job.recipe, job.task)
    method = make_method(job.recipe.federation)
    module, _ = job.base(held.state).adapted()
    model = tensors_of(module, travelling(module, method))
    sent: Tensors = method.broadcast(method.begin(model))
    own: Tensors = {}
    for number in (1, 2):
        ask = Ask("train", "job", number, 2, job.text, "")
        done = perform(job, held, Order(ask, model, sent, own), context.rank, context.world_size)
        model = {name: tensor + done.update[name] for name, tensor in model.items()}
        sent, own = {name: sent[name] + done.extras[name] for name in sent}, done.own
    tensors = {**model, **{f"sent {k}": v for k, v in sent.items()}, **{f"own {k}": v for k, v in own.items()}}
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}, dict(done.sums), done.loss


def test_two_ranks_of_a_site_give_the_update_of_one_and_keep_the_same(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    training = {"optim": "sgd", "learning_rate": 0.05, "per_device_train_batch_size": 8, "num_train_epochs": 2}
    recipes = []
    for method in METHODS:
        recipe = federation_recipe(base, tmp_path / method, training, dtype="float32", **METHODS[method])
        recipes.append(asked_recipe.for_sites(recipe, ["high", "low"]))
    alone = two_rounds(FitContext(), recipes, ROWS)
    first, second = on_ranks(2, two_rounds, recipes, ROWS)
    for method, (tensors, sums, loss), (shared, sums_of_two, loss_of_two), (other, told, _) in zip(
        METHODS, alone, first, second, strict=True
    ):
        assert tensors.keys() == shared.keys() == other.keys()
        for name, value in tensors.items():
            np.testing.assert_allclose(value, shared[name], atol=2e-6, rtol=0, err_msg=f"{method}: {name}")
            np.testing.assert_array_equal(shared[name], other[name], err_msg=f"{method}: the ranks differ in {name}")
        assert loss == pytest.approx(loss_of_two, abs=1e-5)
        assert sums_of_two["confusion"] == sums["confusion"]
        assert told == {}, "only rank 0 tells"
    moved = [
        float(np.abs(alone[0][0][name] - found[0][name]).max())
        for found in alone[1:]
        for name in found[0]
        if name in alone[0][0]
    ]
    assert max(moved) > 1e-4, "the methods differ from plain training"


class Four:
    """Four processes, of which one does it all."""

    size = 4

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def perform(self, job: Job, held: Any, order: Order) -> Done:
        self.orders.append(order)
        return replace(Here().perform(job, held, order), own={"kept": torch.ones(1)})


@pytest.fixture
def recipe(bert: Path, tmp_path: Path) -> Any:
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 8}
    return federation_recipe(bert, tmp_path / "recipe", training, method="scaffold")


def test_a_site_hands_its_worker_what_it_kept_and_keeps_what_comes_back(recipe: Any, tmp_path: Path) -> None:
    four, text = Four(), asked_recipe.for_sites(recipe, ["high", "low"])
    site = Site("a", InMemory(ROWS, 10, ROWS), tmp_path / "state", worker=four)
    job = Job(text)
    module, _ = job.base({"labels": ["high", "low"], "multi_label": False}).adapted()
    model = tensors_of(module, travelling(module, make_method(recipe.federation)))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in model.items()}
    answers = [site.answer(Ask("train", "job", number, 2, text, ""), model, zeros) for number in (1, 2)]
    site.answer(Ask("evaluate", "job", 3, 2, text, ""), model, {})
    assert [list(order.own) for order in four.orders] == [[], ["kept"], ["kept"]]
    assert all(answer.reply.steps == 10 and answer.update.keys() == model.keys() for answer in answers)
    assert answers[0].reply.sums["confusion"]


def test_fewer_rows_than_workers_are_refused_before_round_1(recipe: Any, tmp_path: Path) -> None:
    text = asked_recipe.for_sites(recipe, ["high", "low"])
    ask = Ask("describe", "job", 0, 2, text, "")
    few = Site("a", InMemory(ROWS[:3], 0, ROWS), tmp_path / "few", worker=Four()).answer(ask, {}, {}).reply
    assert "3 training examples cannot fill 4 workers" in few.refused
    assert "Lower the number of workers" in few.refused
    enough = Site("a", InMemory(ROWS[:3], 0, ROWS), tmp_path / "enough").answer(ask, {}, {}).reply
    assert enough.refused == ""


@pytest.mark.parametrize(("rows", "size", "fits"), [(73, 8, True), (73, 3, False), (9, 8, True), (9, 4, False)])
def test_workers_that_would_change_the_updates_are_refused_before_round_1(
    recipe: Any, tmp_path: Path, rows: int, size: int, fits: bool
) -> None:
    recipe = recipe.override(f"training.per_device_train_batch_size={size}", check_paths=False)
    text = asked_recipe.for_sites(recipe, ["high", "low"])
    site = Site("a", InMemory(ROWS[:rows], 0, ROWS), tmp_path / "state", worker=Four())
    refused = site.answer(Ask("describe", "job", 0, 2, text, ""), {}, {}).reply.refused
    assert ("too small for the site's 4 workers" in refused) is not fits
    assert ("lower resources.num_workers" in refused) is not fits
