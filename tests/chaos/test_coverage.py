"""How often the 95 % interval of every metric holds the truth, and how wide it is: simulated over rounds, for every task."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from tunesmith.evaluation.statistics import Aggregate, Estimate, bootstrap
from tunesmith.tasks import metrics

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

LABELS = ["a", "b", "c"]
TAGS = ["O", "B-x", "I-x", "B-y"]
SAMPLES = 200
"""Resamples of a round: enough for coverage, not for an interval that is shown."""

WIDEST = 1.15
"""Most that an interval may be wider than a normal one; that of the calibration error, which covers more than it says, may."""

Draw = Callable[[np.random.Generator, int], Aggregate]


def one_label(rng: np.random.Generator, n: int) -> Aggregate:
    gold = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    logits = rng.normal(size=(n, 3)) + 2 * np.eye(3)[gold]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return lambda weights: metrics.single_label(gold, p, LABELS, weights)


def many_labels(rng: np.random.Generator, n: int) -> Aggregate:
    gold = rng.uniform(size=(n, 3)) < [0.5, 0.3, 0.2]
    p = 1 / (1 + np.exp(-(rng.normal(size=(n, 3)) + 2.5 * gold - 1.25)))
    return lambda weights: metrics.multi_label(gold, p, LABELS, weights)


def tags(rng: np.random.Generator, n: int) -> Aggregate:
    """Sentences of 8 words; a tag in eight is another one."""
    gold = rng.choice(4, (n, 8), p=[0.6, 0.15, 0.1, 0.15])
    said = np.where(rng.uniform(size=gold.shape) < 0.125, rng.integers(0, 4, gold.shape), gold)
    truth, told = ([[TAGS[k] for k in row] for row in rows.tolist()] for rows in (gold, said))
    return lambda weights: metrics.tagging(truth, told, TAGS, weights)


TASKS: dict[str, tuple[Draw, int]] = {
    "one label": (one_label, 400_000),
    "many labels": (many_labels, 300_000),
    "tags": (tags, 60_000),
}
"""Each with the size of the sample whose metrics are the truth."""


@functools.cache
def truth(task: str) -> dict[str, float]:
    draw, large = TASKS[task]
    return dict(draw(np.random.default_rng(12), large)(None))


def simulated(task: str, n: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Metric → the share of rounds whose interval holds the truth, and how wide intervals are, beside that of a normal one.

    Rounds without an interval are left out.
    """
    rng, draw = np.random.default_rng(13), TASKS[task][0]
    found: dict[str, list[Estimate]] = {}
    for number in range(rounds):
        for name, one in bootstrap(draw(rng, n), n, SAMPLES, number).estimates().items():
            if math.isfinite(one.low):
                found.setdefault(name, []).append(one)
    return {name: (held(each, truth(task)[name]), width(each)) for name, each in found.items()}


def held(found: list[Estimate], value: float) -> float:
    return float(np.mean([one.low <= value <= one.high for one in found]))


def width(found: list[Estimate]) -> float:
    """The mean width, over that which the values' own spread over the rounds asks for: 2 × 1.96 standard deviations."""
    spread = float(np.std([one.value for one in found], ddof=1))
    return float(np.mean([one.high - one.low for one in found])) / (2 * 1.96 * spread)


@pytest.mark.parametrize(("n", "rounds"), [(50, 120), (500, 40)])
@pytest.mark.parametrize("task", TASKS)
def test_the_interval_of_every_metric_holds_the_truth_and_is_no_wider_than_it_must_be(task: str, n: int, rounds: int) -> None:
    """So many rounds show neither 93 from 95 % nor that of n = 5,000; docs/gating.md has what more rounds came to."""
    found = simulated(task, n, rounds)
    slack = 3 * math.sqrt(0.91 * 0.09 / rounds)
    short = {name: share for name, (share, _) in found.items() if share < 0.91 - slack}
    wide = {name: ratio for name, (_, ratio) in found.items() if ratio > WIDEST * (1 + 3 / math.sqrt(2 * rounds))}
    assert not short
    assert not {name: ratio for name, ratio in wide.items() if name != "ece"}
