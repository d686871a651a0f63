"""The batch plan: nothing lost, nothing twice, the same for any number of workers, and little padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.training.batch_plan import MicroBatches, PlanSettings, cut_evenly, padding_share, plan, updates_per_epoch

pytestmark = pytest.mark.unit

Plan = list[list[MicroBatches]]


@st.composite
def problems(draw: st.DrawFn) -> tuple[npt.NDArray[np.int32], PlanSettings, int, int, int, int]:
    """Lengths, settings, seed, epoch, world size and accumulation that can be planned: the last update is full enough."""
    world, accumulation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    per_update = world * accumulation * draw(st.integers(1, 6))
    longest = draw(st.sampled_from([1, 3, 40, 5000]))
    lengths = draw(st.lists(st.integers(0 if longest > 1 else 1, longest), min_size=world * accumulation, max_size=150))
    updates = -(-len(lengths) // per_update)
    while len(lengths) // updates < world * accumulation:
        lengths.append(longest)
    plan_settings = PlanSettings(per_update, by_tokens=draw(st.booleans()))
    return np.array(lengths, np.int32), plan_settings, draw(st.integers(0, 5)), draw(st.integers(0, 5)), world, accumulation


def sets(updates: Plan) -> list[frozenset[int]]:
    return [frozenset(int(i) for rank in update for batch in rank for i in batch) for update in updates]


def same(one: Plan, other: Plan) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(mine, theirs)
        for update, of_other in zip(one, other, strict=True)
        for rank, rank_of_other in zip(update, of_other, strict=True)
        for mine, theirs in zip(rank, rank_of_other, strict=True)
    )


@settings(deadline=None, max_examples=150)
@given(problems())
def test_every_example_stands_in_exactly_one_micro_batch_and_none_is_empty(
    problem: tuple[npt.NDArray[np.int32], PlanSettings, int, int, int, int],
) -> None:
    lengths, plan_settings, seed, epoch, world, accumulation = problem
    made = plan(lengths, plan_settings, seed, epoch, world, accumulation)
    assert len(made) == updates_per_epoch(len(lengths), plan_settings)
    assert all(len(update) == world for update in made)
    batches = [batch for update in made for rank in update for batch in rank]
    assert len(batches) == len(made) * world * accumulation
    assert all(len(rank) == accumulation for update in made for rank in update)
    assert all(len(batch) > 0 for batch in batches)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))


@settings(deadline=None, max_examples=60)
@given(problems(), st.integers(0, 9), st.integers(0, 9))
def test_updates_are_as_many_in_every_epoch_and_for_every_seed(
    problem: tuple[npt.NDArray[np.int32], PlanSettings, int, int, int, int], seed: int, epoch: int
) -> None:
    lengths, plan_settings, first_seed, first_epoch, world, accumulation = problem
    made = plan(lengths, plan_settings, first_seed, first_epoch, world, accumulation)
    assert len(plan(lengths, plan_settings, seed, epoch, world, accumulation)) == len(made)
    again = plan(lengths, plan_settings, first_seed, first_epoch, world, accumulation)
    assert same(again, made), "the same call, the same plan"


@settings(deadline=None, max_examples=60)
@given(st.integers(64, 300), st.booleans(), st.integers(0, 5), st.sampled_from([1, 7, 300]))
def test_what_an_update_sees_does_not_depend_on_the_world(examples: int, by_tokens: bool, seed: int, longest: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, longest + 1, examples).astype(np.int32)
    plan_settings = PlanSettings(32, by_tokens)
    alone = sets(plan(lengths, plan_settings, seed, 0))
    for world, accumulation in ((2, 1), (1, 4), (4, 2), (8, 1)):
        assert sets(plan(lengths, plan_settings, seed, 0, world, accumulation)) == alone


def test_epochs_and_seeds_change_the_updates() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200).astype(np.int32)
    for by_tokens in (True, False):
        plan_settings = PlanSettings(16, by_tokens)
        seen = {frozenset(sets(plan(lengths, plan_settings, seed, epoch))) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))}
        assert len(seen) == 4
    by_length = plan(lengths, PlanSettings(16, by_tokens=True), 0, 0)
    longest = [max(lengths[batch].max() for rank in update for batch in rank) for update in by_length]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def lengths_of_the_issue(n: int = 4000) -> npt.NDArray[np.int32]:
    """Log-normal tokens: mean 39, 95th percentile 105, at most 256."""
    drawn = np.random.default_rng(0).lognormal(3.349, 0.793, n)
    return np.clip(drawn, 2, 256).astype(np.int32)


@pytest.mark.parametrize(("world", "accumulation", "most"), [(1, 4, 0.05), (2, 2, 0.05), (4, 1, 0.05), (1, 1, 0.06)])
def test_padding_is_a_few_per_cent_of_the_tokens(world: int, accumulation: int, most: float) -> None:
    lengths = lengths_of_the_issue()
    assert lengths.mean() == pytest.approx(39, abs=1.5)
    assert np.percentile(lengths, 95) == pytest.approx(105, abs=6)
    for epoch in range(3):
        made = plan(lengths, PlanSettings(32, by_tokens=True), 0, epoch, world, accumulation)
        batches = [batch for update in made for rank in update for batch in rank]
        assert padding_share(batches, lengths) < most
        shuffled = plan(lengths, PlanSettings(32, by_tokens=False), 0, epoch, world, accumulation)
        assert padding_share([b for update in shuffled for rank in update for b in rank], lengths) > 0.3, "the peer pads"


def test_updates_cost_alike_and_hold_the_average_number() -> None:
    lengths = lengths_of_the_issue()
    made = plan(lengths, PlanSettings(32, by_tokens=True), 0, 0, 1, 4)
    sizes = [sum(len(batch) for batch in rank) for update in made for rank in update]
    tokens = [sum(len(b) * int(lengths[b].max()) for b in rank) for update in made for rank in update]
    assert np.mean(sizes) == 32
    assert min(sizes) >= 8
    assert max(sizes) <= 128
    assert np.std(tokens) < 0.15 * np.mean(tokens)


@pytest.mark.parametrize("by_tokens", [True, False])
def test_too_few_examples_for_the_workers_are_refused(by_tokens: bool) -> None:
    with pytest.raises(ValueError, match=r"3 examples in 1 updates of 8 cannot fill 2 workers × 2 accumulation steps"):
        plan(np.ones(3, np.int32), PlanSettings(8, by_tokens), 0, 0, 2, 2)


def test_cutting_evenly_lowers_the_dearest_part() -> None:
    lengths = np.array([1, 1, 1, 1, 10, 10], np.int32)
    assert [part.tolist() for part in cut_evenly(np.arange(6), lengths, 3)] == [[0, 1, 2, 3], [4], [5]]
    assert [len(part) for part in cut_evenly(np.arange(6), lengths, 3, most=2)] == [2, 2, 2]


def test_the_share_of_padding() -> None:
    assert padding_share([np.array([0, 1]), np.array([2])], np.array([1, 3, 5], np.int32)) == pytest.approx(2 / 11)
    assert padding_share([], np.zeros(0, np.int32)) == 0
