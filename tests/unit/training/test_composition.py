"""An epoch holds all new rows and exactly the stated share of old ones, whoever trains and however often."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from support.data import MemorySplit, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.errors import DataError
from tunesmith.tasks.base import Features
from tunesmith.training.batch_plan import PlanSettings, plan
from tunesmith.training.composition import compose, replayed, turns
from tunesmith.training.fit import FitData, FitSpec, fit


class Counting(MemorySplit):
    """Counts how often each example is asked for."""

    seen: Counter[int]

    def features(self, indices: Sequence[int]) -> list[Features]:
        self.seen.update(int(i) for i in indices)
        return super().features(indices)


def replaying(tmp_path: Path, share: float = 0.25, **training: object) -> tuple[FitSpec, FitData, Counting]:
    base = tiny_bert(tmp_path / "base")
    recipe = recipe_for(
        "text-classification",
        base,
        tmp_path / "a",
        eval_strategy="no",
        load_best_model_at_end=False,
        replay={"share": share, "data": str(base)},  # the rows are in memory
        **training,
    )
    spec, data = prepare_in_memory(recipe, texts(64))
    old = Counting(spec.task, texts(10, seed=4), spec.preprocessing)
    old.seen = Counter()
    return spec, dataclasses.replace(data, replay=old), old


@pytest.mark.parametrize(("new", "share", "old"), [(48, 0.25, 16), (80, 0.2, 20), (10, 0.01, 1), (3, 0.9, 27)])
def test_the_share_is_that_of_both_together(new: int, share: float, old: int) -> None:
    assert replayed(new, share) == old
    assert old == 1 or abs(old / (new + old) - share) < 1 / (new + old)


def test_training_sees_the_stated_numbers(tmp_path: Path) -> None:
    spec, data, old = replaying(tmp_path, num_train_epochs=5)
    result = fit(spec, data)
    assert old.seen.total() == 5 * 16, "a quarter of 48 + 16, each epoch"
    assert set(old.seen.values()) == {8}, "80 turns of 10 rows"
    assert result.place.step == 5 * 8


def test_an_epoch_does_not_depend_on_ranks_or_lengths(tmp_path: Path) -> None:
    spec, data, _ = replaying(tmp_path)
    composition = compose(spec, data)
    rows = composition.rows(3)
    assert composition.size == len(rows) == 64
    assert sorted(rows[rows < 48]) == list(range(48))
    lengths = composition.examples.lengths[rows]
    for by_tokens in (True, False):
        alone = plan(lengths, PlanSettings(16, by_tokens), 42, 3)
        shared = plan(lengths, PlanSettings(16, by_tokens), 42, 3, world_size=2, accumulation=2)
        for one, other in zip(alone, shared, strict=True):
            assert {*np.concatenate(one[0])} == {*np.concatenate([*other[0], *other[1]])}


def test_old_rows_take_turns() -> None:
    seen = np.concatenate([turns(7, 3, seed=1, epoch=epoch) for epoch in range(14)])
    assert set(Counter(seen.tolist()).values()) == {6}
    assert sorted(seen[:7]) == sorted(seen[7:14]) == list(range(7)), "nobody twice before all have been"
    assert seen[:7].tolist() != seen[7:14].tolist()


def test_the_joined_split_gives_what_the_two_gave(tmp_path: Path) -> None:
    spec, data, _ = replaying(tmp_path)
    assert data.replay is not None
    joined = compose(spec, data).examples
    assert [one["text"] for one in joined.examples([50, 1, 48])] == [
        data.replay.examples([2])[0]["text"],
        data.train.examples([1])[0]["text"],
        data.replay.examples([0])[0]["text"],
    ]
    assert joined.features([50])[0].length == joined.lengths[50] == data.replay.lengths[2]


def test_the_mean_loss_of_an_update_counts_old_and_new_units(tmp_path: Path) -> None:
    spec, data, _ = replaying(tmp_path)
    assert compose(spec, data).units == 64
    assert compose(spec, dataclasses.replace(data, replay=None)).units == 48


def test_no_rows_to_replay_is_refused(tmp_path: Path) -> None:
    spec, data, _ = replaying(tmp_path)
    nothing = MemorySplit(spec.task, texts(1), spec.preprocessing)
    nothing._examples.clear()
    with pytest.raises(DataError, match="no rows to replay"):
        compose(spec, dataclasses.replace(data, replay=nothing))
