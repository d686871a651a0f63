"""Which examples an update sees, and in which micro-batch of which worker: decided by a pure function.

The plan of an epoch depends on the examples' lengths, the settings, the seed and the epoch, and on nothing else. So a run
resumes in the middle of an epoch by counting, one worker sees the same updates as eight, and an epoch always has the same
number of updates (which the learning-rate schedule relies on).

Two ways to form the updates:

``fixed``
    a random permutation, cut into updates of equal size.
``tokens``
    examples sorted by length (with seeded jitter, so that neighbours change from epoch to epoch) and cut where the *padded*
    tokens of each update are equal: short texts come many at a time, long ones few. The updates are then shuffled. Padding is a
    few per cent, and every micro-batch costs the same memory and time on every worker.

Since the loop divides the summed loss of an update by the *average* number of loss units of an update, an example weighs
the same whether it stands in a batch of many short ones or of few long ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
MicroBatches = tuple[Indices, ...]
"""One per accumulation step."""


class Draws(NamedTuple):
    """The examples of one micro-batch."""

    indices: Indices
    copies: Indices
    """How often each of them was drawn before in this epoch: 0, but where sampling draws an example again."""


JITTER = 0.05
"""Relative noise on a length before sorting: neighbours change each epoch, padding grows by about two per cent
(``tests/unit/training/test_batch_plan.py`` holds it below five)."""

SPREAD = 4
"""An update of very short examples holds at most so many times the average number, one of very long ones at least that
part of it: the steps stay comparable, and there is something in it for every worker."""


@dataclass(frozen=True)
class PlanSettings:
    """The part of the recipe that shapes the plan."""

    examples_per_update: int
    """Examples of one update over all workers and accumulation steps, on average."""
    by_tokens: bool
    """Batches of equal padded tokens instead of equal numbers of examples."""


def updates_per_epoch(examples: int, settings: PlanSettings, parts: int = 1) -> int:
    """Updates in every epoch, the same whatever the shuffle: at least one, and each with something for every micro-batch.

    >>> updates_per_epoch(100, PlanSettings(examples_per_update=32, by_tokens=False))
    4
    >>> updates_per_epoch(9, PlanSettings(examples_per_update=8, by_tokens=False), parts=8)
    1
    """
    return max(1, min(-(-examples // settings.examples_per_update), examples // parts))


def plan(
    lengths: npt.NDArray[np.int32],
    settings: PlanSettings,
    seed: int,
    epoch: int,
    world_size: int = 1,
    accumulation: int = 1,
) -> list[list[MicroBatches]]:
    """All updates of one epoch.

    Args:
        lengths: what each example costs, ``[n]``, in tokens or samples; all 1 where examples cost the same.
        settings: the size of an update, and how it is measured.
        seed: the run's seed.
        epoch: from 0.
        world_size: workers; the examples of an update do not depend on it.
        accumulation: micro-batches of each worker in an update.

    Returns:
        ``[update][rank][micro-batch]`` → indices into ``lengths``. Every example stands in exactly one micro-batch; every
        rank has exactly ``accumulation`` micro-batches in every update, none of them empty.

    Raises:
        ValueError: an update has fewer examples than there are micro-batches to fill.
    """
    parts = world_size * accumulation
    updates = updates_per_epoch(len(lengths), settings, parts)
    if len(lengths) // updates < parts:
        raise ValueError(
            f"{len(lengths)} examples in {updates} updates of {settings.examples_per_update} cannot fill {world_size} workers "
            f"× {accumulation} accumulation steps"
        )
    rng = np.random.default_rng((seed, epoch))
    shuffled = rng.permutation(len(lengths)).astype(np.int64)
    if not settings.by_tokens:
        groups = np.array_split(shuffled, updates)
        return [_deal(np.array_split(group, parts), world_size, accumulation) for group in groups]
    jittered = lengths[shuffled] * rng.uniform(1 - JITTER, 1 + JITTER, len(lengths))
    ordered = shuffled[np.argsort(jittered, kind="stable")]
    average = settings.examples_per_update
    # `parts` only wins where a micro-batch averages fewer than SPREAD examples; else the cut does not know the world size.
    least = max(parts, min(-(-average // SPREAD), len(lengths) // updates))
    groups = cut_evenly(ordered, lengths, updates, least=least, most=SPREAD * average)
    return [_deal(cut_evenly(groups[i], lengths, parts), world_size, accumulation) for i in rng.permutation(updates)]


def cut_evenly(
    ordered: Indices, lengths: npt.NDArray[np.int32], parts: int, *, least: int = 1, most: int | None = None
) -> list[Indices]:
    """Cut a sequence that is sorted by length into ``parts`` runs whose padded tokens (count × longest) are as equal as can be.

    Each run has at least ``least`` and, where ``most`` allows it, at most ``most`` examples. Found by bisection on the cost
    of the dearest run: filling greedily under a cost needs fewer runs the higher the cost is.
    """
    costs = lengths[ordered].astype(np.int64)
    total = len(ordered)
    most = max(most or total, -(-total // parts))
    running = np.maximum.accumulate(costs)  # jitter leaves the order slightly uneven; a bound on each run's longest
    low, high = int(costs.sum()) // parts, int(running[-1]) * total
    while low < high:
        middle = (low + high) // 2
        if _fill(running, middle, parts, least, most) is not None:
            high = middle
        else:
            low = middle + 1
    cuts = _fill(running, low, parts, least, most)
    if cuts is None:
        cuts = [len(run) for run in np.array_split(costs, parts)]
    return np.split(ordered, np.cumsum(cuts)[:-1])


def _fill(running: npt.NDArray[np.int64], budget: int, parts: int, least: int, most: int) -> list[int] | None:
    """Sizes of ``parts`` runs, each of at most ``budget`` padded tokens where ``least`` allows, or None if they do not fit."""
    sizes: list[int] = []
    start, total = 0, len(running)
    for part in range(parts):
        left = parts - part - 1
        if left == 0:
            size = total - start
            fits = size <= most and (size <= least or size * int(running[-1]) <= budget)
            return [*sizes, size] if fits else None
        size = _longest_run(running, start, budget, most)
        size = min(max(size, least), total - start - left * least)
        sizes.append(size)
        start += size
    return sizes


def _longest_run(running: npt.NDArray[np.int64], start: int, budget: int, most: int) -> int:
    """How many examples from ``start`` on fit into ``budget`` padded tokens."""
    low, high = 0, min(most, len(running) - start)
    while low < high:
        middle = (low + high + 1) // 2
        if middle * int(running[start + middle - 1]) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _deal(pieces: list[Indices], world_size: int, accumulation: int) -> list[MicroBatches]:
    """Give each rank its micro-batches."""
    return [tuple(pieces[rank * accumulation : (rank + 1) * accumulation]) for rank in range(world_size)]


def with_copies(updates: Sequence[Sequence[MicroBatches]]) -> list[list[tuple[Draws, ...]]]:
    """All updates of one epoch, ``[update][rank][micro-batch]``, with what tells the draws of one example apart.

    They are counted through the updates in order, so that the numbers do not depend on how an update is cut.

    >>> [(update,)] = with_copies([[(np.array([7, 3]), np.array([7]))]])
    >>> [draws.copies.tolist() for draws in update]
    [[0, 0], [1]]
    """
    batches = [batch for update in updates for micro in update for batch in micro]
    drawn = np.concatenate(batches) if batches else np.zeros(0, np.int64)
    order = np.argsort(drawn, kind="stable")
    begins = np.flatnonzero(np.diff(drawn[order], prepend=-1))
    copies = np.empty(len(drawn), np.int64)
    copies[order] = np.arange(len(drawn)) - np.repeat(begins, np.diff(begins, append=len(drawn)))
    parts = iter(np.split(copies, np.cumsum([len(batch) for batch in batches])[:-1]))
    return [[tuple(Draws(batch, next(parts)) for batch in micro) for micro in update] for update in updates]


def padding_share(batches: list[Indices], lengths: npt.NDArray[np.int32]) -> float:
    """Share of the padded tokens that is padding, between 0 and 1."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1.0 - float(lengths.sum()) / padded if padded else 0.0
