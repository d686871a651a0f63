"""Weights of domains: every epoch's composition, counted; the same for any ranks and accumulation; resumed to the last bit."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cases import CASES, write
from support.data import MemorySplit, texts
from support.fits import drawn_of_domains, losses, on_ranks, prepare_in_memory
from support.models import tiny_bert
from tunesmith.data.domains import Domains
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.training.batch_plan import Indices
from tunesmith.training.checkpoint import Start
from tunesmith.training.composition import compose
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
from tunesmith.training.sampling import domain_quotas, drawn_by_domain, make_sampler
from tunesmith.training.updates import make_planner

pytestmark = pytest.mark.unit

OF = np.array([0] * 60 + [1] * 24 + [2] * 12, np.int32)
"""Three domains of 96 rows."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "base", dropout=0.1)


def made(base: Path, weights: tuple[float | None, ...] = (1, 2, 1), **training: Any) -> tuple[FitSpec, FitData]:
    """96 training rows in three domains; of the first domain every eighth row is of the class ``high``, else every other."""
    folder = base.parent
    (folder / "rows.csv").write_text("text,label\n")
    train = [{"name": name, "path": "rows.csv", "weight": weight} for name, weight in zip("abc", weights, strict=True)]
    settings = {"bf16": False, "use_gpu": False, "per_device_train_batch_size": 8, "eval_strategy": "no", **training}
    recipe = Recipe.from_dict(
        {
            "task": "text-classification",
            "model": {"model_name_or_path": str(base)},
            "data": {"train": train},
            "training": {"load_best_model_at_end": False, **settings},
        },
        base_dir=folder,
    )
    low, high = ([row for row in texts(400) if row["label"] == label] for label in ("low", "high"))
    rows = [(high if (k % 8 == 0 if k < 60 else k % 2) else low)[k] for k in range(96)]
    spec, data = prepare_in_memory(recipe, rows + texts(16, seed=9))
    return spec, dataclasses.replace(data, domains=Domains(("a", "b", "c"), OF))


def of_domain(drawn: Indices) -> list[int]:
    return np.bincount(OF[drawn], minlength=3).tolist()


@pytest.mark.parametrize(
    ("draws", "weights", "wanted"),
    [
        (96, (1, 2, 1), [24, 48, 24]),
        (100, (1, 1, 1), [34, 33, 33]),
        (10, (0.5, 0.25, 0.25), [5, 3, 2]),
        (7, (1e-3, 1, 0), [0, 7, 0]),
    ],
)
def test_quotas_are_the_shares_by_largest_remainders(draws: int, weights: tuple[float, ...], wanted: list[int]) -> None:
    found = list(domain_quotas(draws, dict(zip("abc", weights, strict=True))).values())
    assert found == wanted
    assert sum(found) == draws
    assert all(abs(one - draws * w / sum(weights)) < 1 for one, w in zip(found, weights, strict=True))


def test_every_epoch_has_the_weights_shares_and_is_as_long_as_ever(base: Path) -> None:
    spec, data = made(base)
    composition = compose(spec, data)
    assert composition.size == composition.units == 96
    for epoch in range(5):
        assert of_domain(composition.rows(epoch)) == [24, 48, 24]
        assert np.array_equal(composition.rows(epoch), composition.rows(epoch))
    five = np.bincount(np.concatenate([composition.rows(epoch) for epoch in range(5)]), minlength=96)
    assert [set(five[domain == OF]) for domain in range(3)] == [{2}, {10}, {10}], "within a domain rows take turns"
    assert drawn_by_domain(make_sampler(spec, data.train, data.domains), data.domains or Domains((), OF), 3) == {
        "a": 24,
        "b": 48,
        "c": 24,
    }


def test_without_weights_every_row_comes_once(base: Path) -> None:
    spec, data = made(base, (None, None, None))
    assert np.array_equal(compose(spec, data).rows(3), np.arange(96))


def test_a_weight_that_is_not_given_is_one(base: Path) -> None:
    spec, data = made(base, (None, 2, None))
    assert of_domain(compose(spec, data).rows(0)) == [24, 48, 24]


def test_balanced_keeps_the_domains_shares_and_evens_the_classes_in_each(base: Path) -> None:
    spec, data = made(base, sampling="balanced")
    composition = compose(spec, data)
    for epoch in range(3):
        drawn = composition.rows(epoch)
        assert of_domain(drawn) == [24, 48, 24]
        found = Counter(zip(OF[drawn].tolist(), (e["label"] for e in data.train.examples(drawn.tolist())), strict=True))
        assert [found[key] for key in ((0, "high"), (0, "low"), (1, "high"), (1, "low"))] == [12, 12, 24, 24]
    even, data = made(base, (None, None, None), sampling="balanced")
    classes = Counter(e["label"] for e in data.train.examples(compose(even, data).rows(0).tolist()))
    assert set(classes.values()) == {48}, "without weights classes are drawn over all domains"


def test_class_weights_go_by_the_rows_and_not_by_the_draws(base: Path) -> None:
    weighed, plain = (made(base, weights, class_weights="inverse")[0] for weights in ((1, 9, 1), (None, None, None)))
    assert weighed.preprocessing.state["label_counts"] == plain.preprocessing.state["label_counts"]


def test_replay_is_its_share_beside_the_weighted_rows(base: Path) -> None:
    spec, data = made(base, replay={"share": 0.25, "data": str(base)})  # the rows are in memory
    data = dataclasses.replace(data, replay=MemorySplit(spec.task, texts(10, seed=4), spec.preprocessing))
    composition = compose(spec, data)
    rows = composition.rows(2)
    assert composition.size == len(rows) == 128
    assert of_domain(rows[rows < 96]) == [24, 48, 24]


@pytest.mark.parametrize("batching", ["tokens", "fixed"])
def test_the_updates_are_the_same_for_any_workers_and_accumulation(base: Path, batching: str) -> None:
    sets = {}
    for world, accumulation, size in ((1, 1, 16), (2, 1, 8), (1, 4, 4), (2, 2, 4)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "batching": batching}
        spec, data = made(base, **settings)
        planner = make_planner(spec, compose(spec, data), FitContext(world_size=world))
        epochs = [planner(epoch) for epoch in range(3)]
        for updates in epochs:
            assert of_domain(np.concatenate([batch for update in updates for rank in update for batch in rank])) == [24, 48, 24]
        sets[world, accumulation] = [
            [Counter(int(i) for rank in update for batch in rank for i in batch) for update in updates] for updates in epochs
        ]
    assert all(found == sets[1, 1] for found in sets.values())


@pytest.mark.parametrize(
    ("weights", "codes", "words"),
    [
        ((1, 1, 1), [0] * 60 + [1] * 36, "the domain c has a weight, and no row in the training split"),
        ((1000, 1000, 1), OF, "the weight of the domain c comes to none of the 96 draws"),
    ],
)
def test_a_domain_that_cannot_be_drawn_is_refused(base: Path, weights: Any, codes: Any, words: str) -> None:
    spec, data = made(base, weights)
    with pytest.raises(DataError, match=words):
        make_sampler(spec, data.train, Domains(("a", "b", "c"), np.array(codes, np.int32)))
    with pytest.raises(ValueError, match="nobody says of which domain"):
        make_sampler(spec, data.train)


class Interrupted(Exception):
    """Stands for the death of the process."""


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(base: Path, tmp_path: Path) -> None:
    settings = {"num_train_epochs": 2, "save_steps": 5, "logging_steps": 1, "sampling": "balanced", "optim": "sgd"}
    spec, data = made(base, (1, 5, 2), **settings)

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if metrics["step"] > 15:
            raise Interrupted
        shutil.copytree(str(folder), tmp_path / "kept", dirs_exist_ok=True)

    whole = fit(spec, data, FitContext(report=lambda *_: None))
    with pytest.raises(Interrupted):
        fit(spec, data, FitContext(report=report))
    resumed = fit(spec, data, FitContext(start=Start(tmp_path / "kept"), report=lambda *_: None))
    assert losses(resumed) == losses(whole)[15:]
    for name, tensor in whole.model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), resumed.model.state_dict()[name].numpy(), err_msg=name)


def weighed(case_id: str, folder: Path, **training: Any) -> Recipe:
    """A recipe of a task over two domains, the smaller of which has three quarters of the draws."""
    case = CASES[case_id]
    recipe = case.recipe(folder, batching="fixed", num_train_epochs=1, optim="sgd", **training)
    rows = case.rows(64)
    places = {name: write(part, folder / name) for name, part in (("big", rows[:48]), ("small", rows[48:]))}
    named = [{"name": name, "path": place, "weight": {"big": 1, "small": 3}[name]} for name, place in places.items()]
    split = recipe.data.split.model_copy(update={"validation": 0.25, "test": 0.0})
    values = recipe.model_dump(exclude_unset=True)
    return Recipe.from_dict({**values, "data": {"train": named, "split": split.model_dump()}}, base_dir=folder)


@pytest.mark.parametrize("names", [("text", "multi-label", "token", "ctc"), ("vit", "resnet"), ("detection",)])
def test_two_ranks_draw_together_what_the_weights_say(names: tuple[str, ...], tmp_path: Path) -> None:
    """Of every task; those whose training does not depend on how batches are cut also end with one rank's parameters."""
    shared = [weighed(name, tmp_path / name, per_device_train_batch_size=4) for name in names]
    alone = [weighed(name, tmp_path / name, per_device_train_batch_size=8) for name in names]
    first, second = on_ranks(2, drawn_of_domains, shared)
    for name, one, zero, other in zip(names, drawn_of_domains(FitContext(), alone), first, second, strict=True):
        both = {domain: zero[0][domain] + other[0][domain] for domain in ("big", "small")}
        assert both == one[0], name
        assert both["small"] == 3 * both["big"], name
        for key, value in zero[1].items():
            np.testing.assert_array_equal(value, other[1][key], err_msg=f"{name} {key}")
            if CASES[name].cut_freely:
                np.testing.assert_allclose(value, one[1][key], atol=1e-4, err_msg=f"{name} {key}")
