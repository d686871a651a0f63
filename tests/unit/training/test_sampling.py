"""Balanced sampling: the composition of every epoch, counted; that nothing is left out; that the plan keeps its promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cases import several
from support.data import sentences, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.errors import UserError
from tunesmith.training.batch_plan import Indices
from tunesmith.training.composition import compose
from tunesmith.training.fit import FitContext, FitData, FitSpec
from tunesmith.training.sampling import Balanced, EveryExample, make_sampler
from tunesmith.training.updates import make_planner

pytestmark = pytest.mark.unit


def uneven(n: int, rare: int = 7) -> list[dict[str, Any]]:
    """Texts of which ``rare`` among the first ``n`` - 16 are of one class."""
    rows = [row for row in texts(4 * n) if row["label"] == "low"][: n - 16 - rare]
    rows += [row for row in texts(4 * n) if row["label"] == "high"][:rare]
    return rows + texts(16, seed=9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "base")


def made(task: str, base: Path, rows: list[dict[str, Any]], folder: Path, **training: Any) -> tuple[FitSpec, FitData]:
    recipe = recipe_for(task, base, folder, **{"sampling": "balanced", "per_device_train_batch_size": 8, **training})
    return prepare_in_memory(recipe, rows)


def of_class(data: FitData, drawn: Indices) -> Counter[str]:
    return Counter(str(example["label"]) for example in data.train.examples(drawn.tolist()))


def test_every_epoch_has_each_class_equally_often_and_is_as_long_as_ever(base: Path, tmp_path: Path) -> None:
    spec, data = made("text-classification", base, uneven(101), tmp_path)
    sampler = make_sampler(spec, data.train)
    n = len(data.train)
    assert (n, of_class(data, np.arange(n))["high"]) == (85, 7)
    for epoch in range(4):
        drawn = sampler.draw(epoch)
        assert len(drawn) == n
        assert sorted(of_class(data, drawn).values()) == [42, 43]
    assert sampler.units == n
    assert not np.array_equal(np.sort(sampler.draw(0)), np.sort(sampler.draw(1))), "the common class takes turns"


def test_examples_of_a_class_come_equally_often_over_the_epochs() -> None:
    sampler = Balanced(((np.arange(30), np.arange(30, 33)),), (33,), 33.0, seed=3)
    for epochs in (1, 2, 3, 7):
        counts = np.bincount(np.concatenate([sampler.draw(epoch) for epoch in range(epochs)]), minlength=33)
        for members in (counts[:30], counts[30:]):
            assert members.max() - members.min() <= 1
    assert np.array_equal(sampler.draw(5), sampler.draw(5)), "it does not depend on what was drawn before"
    other = Balanced(sampler.members, sampler.draws, 33.0, seed=4)
    assert not np.array_equal(other.draw(0), sampler.draw(0))


def test_fewer_draws_than_classes_leave_none_out_for_ever() -> None:
    """A domain whose share of an epoch is smaller than its number of classes: each comes as often as the others."""
    classes = tuple(np.arange(start, start + 4) for start in range(0, 20, 4))
    sampler = Balanced((classes, (np.arange(20, 60),)), (3, 7), 10.0, seed=0)
    epochs = [sampler.draw(epoch) for epoch in range(10)]
    for drawn in epochs:
        assert [(drawn < 20).sum(), (drawn >= 20).sum()] == [3, 7]
        assert np.bincount(drawn[drawn < 20] // 4, minlength=5).max() == 1
    together = np.concatenate(epochs)
    assert np.bincount(together[together < 20] // 4).tolist() == [6] * 5
    assert set(np.bincount(together[together < 20])) == {1, 2}


def test_of_several_labels_each_is_drawn_equally_often(base: Path, tmp_path: Path) -> None:
    spec, data = made("text-classification", base, several(96), tmp_path)
    sampler = make_sampler(spec, data.train)
    assert isinstance(sampler, Balanced)
    shown = [{*example["label"]} or {"none"} for example in data.train.examples(range(80))]
    for members, label in zip(sampler.members[0], [*spec.preprocessing.state["labels"], "none"], strict=True):
        assert members.tolist() == [i for i, names in enumerate(shown) if label in names]
    assert sampler.draws == (80,)


def test_of_tags_each_is_drawn_with_its_sentences(base: Path, tmp_path: Path) -> None:
    spec, data = made("token-classification", base, sentences(96), tmp_path)
    sampler = make_sampler(spec, data.train)
    assert isinstance(sampler, Balanced)
    tags = [set(example["tags"]) for example in data.train.examples(range(80))]
    for members, tag in zip(sampler.members[0], spec.preprocessing.state["labels"], strict=True):
        assert members.tolist() == [i for i, held in enumerate(tags) if tag in held]
    mean = np.mean([data.train.counts[sampler.draw(epoch)].sum() for epoch in range(60)])
    assert sampler.units == pytest.approx(mean, rel=0.01)


def test_without_sampling_it_is_every_example_once(base: Path, tmp_path: Path) -> None:
    spec, data = made("token-classification", base, sentences(40), tmp_path, sampling="none")
    sampler = make_sampler(spec, data.train)
    assert isinstance(sampler, EveryExample)
    assert sampler.units == data.train.counts.sum()
    assert sampler.draw(3).tolist() == list(range(24))


def test_a_task_without_classes_is_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = made("text-classification", base, texts(40), tmp_path)
    monkeypatch.setattr(type(spec.task), "classes_of", lambda *_: None)
    with pytest.raises(UserError, match=r"training.sampling is balanced, and the task text-classification has no classes"):
        make_sampler(spec, data.train)


@pytest.mark.parametrize("batching", ["tokens", "fixed"])
def test_the_plan_of_an_epoch_does_not_depend_on_workers_or_accumulation(base: Path, tmp_path: Path, batching: str) -> None:
    """Updates are as many in each epoch, of the same examples whoever computes them; classes are counted over all ranks."""
    sets = {}
    for world, accumulation, size in ((1, 1, 16), (2, 1, 8), (1, 4, 4), (2, 2, 4)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "batching": batching}
        spec, data = made("text-classification", base, uneven(112), tmp_path / f"{world}{accumulation}", **settings)
        context = FitContext(world_size=world)
        planner = make_planner(spec, compose(spec, data), context)
        epochs = [planner(epoch) for epoch in range(3)]
        assert {len(updates) for updates in epochs} == {6}
        for updates in epochs:
            batches = [batch for update in updates for rank in update for batch in rank]
            assert len(batches) == 6 * world * accumulation
            assert all(len(batch) for batch in batches)
            assert sorted(of_class(data, np.concatenate(batches)).values()) == [48, 48]
        sets[world, accumulation] = [
            [Counter(int(i) for rank in update for batch in rank for i in batch) for update in updates] for updates in epochs
        ]
    assert all(found == sets[1, 1] for found in sets.values())
