"""Verdicts are wrong as rarely as they say, and as many examples settle a question as they name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tunesmith.evaluation import decisions
from tunesmith.evaluation.comparison import Compared, judge_family, measured
from tunesmith.evaluation.flips import Flips
from tunesmith.evaluation.statistics import Bootstrap, Estimate, bootstrap
from tunesmith.tasks.metrics import weighted_mean

MARGIN = 0.03


def pairs(rng: np.random.Generator, n: int, fixed: float, broken: float, right: float = 0.8) -> tuple[NDArray, NDArray]:
    """Whether A and B are right on n examples, of which such shares are fixed and broken."""
    kinds = rng.choice(4, n, p=[right - broken, fixed, broken, 1 - right - fixed])
    return (kinds < 2).astype(float), ((kinds == 0) | (kinds == 2)).astype(float)


def judged(values: NDArray, name: str = "accuracy") -> Bootstrap:
    return bootstrap(lambda weights: {name: weighted_mean(values, weights)}, len(values), 100 if name == "accuracy" else 300)


def against(a: NDArray, b: NDArray, name: str = "accuracy", margin: float = MARGIN) -> Compared:
    fixed, broken = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    flips = Flips(0, fixed, broken, 0, fixed + broken, decisions.mcnemar(fixed, broken)) if name == "accuracy" else None
    return measured(judged(a, name), judged(b, name), name, margin, 0.95, flips)


def verdict(a: NDArray, b: NDArray, margin: float = MARGIN) -> str:
    return judge_family({"accuracy": against(a, b, margin=margin)})["accuracy"].verdict


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_of_ten_measures_that_are_alike_none_is_told_apart_in_95_of_100_cases(name: str) -> None:
    rng, rounds, wrong = np.random.default_rng(1), 150, 0
    for _ in range(rounds):
        family = {}
        for k in range(10):
            if name == "accuracy":
                a, b = pairs(rng, 120, 0.08, 0.08)
            else:
                shared = rng.gamma(2, 1, 120)
                a, b = shared + rng.normal(size=120), shared + rng.normal(size=120)
            family[f"{name}/{k}"] = against(a, b, name, margin=0.0)
        wrong += any(one.verdict in ("better", "worse") for one in judge_family(family).values())
    assert wrong / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


def test_a_drop_of_the_margin_is_called_equivalent_or_not_worse_in_5_of_100_cases_at_most() -> None:
    rng, rounds = np.random.default_rng(2), 400
    equal = passed = 0
    for _ in range(rounds):
        a, b = pairs(rng, 1000, 0.05, 0.05 + MARGIN)
        found = against(a, b)
        passed += decisions.not_worse(found.difference, MARGIN)
        equal += decisions.decide(found.difference, MARGIN, found.p) == "equivalent"
    assert equal <= passed <= 0.05 * rounds


def test_so_many_examples_as_are_named_settle_an_equivalence_four_times_in_five() -> None:
    rng, rounds = np.random.default_rng(3), 200
    n = decisions.samples(math.sqrt(0.1), MARGIN, sides=2)
    assert n is not None
    said = [verdict(*pairs(rng, n, 0.05, 0.05)) for _ in range(rounds)]
    assert said.count("equivalent") / rounds >= decisions.POWER - 3 * math.sqrt(0.16 / rounds)
    assert said.count("equivalent") / rounds <= 0.95, "it names no more than are needed"


def test_a_difference_of_the_detectable_size_is_seen_four_times_in_five() -> None:
    rng, rounds, n = np.random.default_rng(4), 200, 1500
    effect = decisions.detectable(math.sqrt(0.1), n)
    said = [verdict(*pairs(rng, n, 0.05 + effect / 2, 0.05 - effect / 2), margin=0.0) for _ in range(rounds)]
    assert said.count("better") / rounds == pytest.approx(decisions.POWER, abs=3 * math.sqrt(0.16 / rounds))


def test_better_beyond_doubt_stays_better_inside_the_margin_and_worse_there_is_equivalent() -> None:
    better, worse = Estimate(0.002, 0.001, 0.003, 9, "mover"), Estimate(-0.002, -0.003, -0.001, 9, "mover")
    assert decisions.decide(better, 0.01, 0.001) == "better"
    assert decisions.decide(worse, 0.01, 0.001) == "equivalent"
    assert decisions.decide(worse, 0.0, 0.001) == "worse"


def test_without_an_interval_nothing_is_settled() -> None:
    unknown = Estimate(0.1, math.nan, math.nan, 1, "none")
    assert decisions.decide(unknown, 0.01, 1.0) == "inconclusive"
    assert not decisions.not_worse(unknown, 0.01)
    assert decisions.p_below(unknown, 5) == decisions.p_above(unknown, 0) == 1.0


def test_what_lies_at_the_margin_is_settled_by_no_number_of_examples() -> None:
    assert decisions.samples(0.3, 0.0) is None
    assert decisions.samples(0.3, -0.1) is None
    assert decisions.samples(0.3, 1e-9) is None


def test_p_agrees_with_the_interval_at_its_ends() -> None:
    found = Estimate(0.8, 0.7, 0.95, 60, "wilson")
    assert decisions.p_below(found, 0.95) == pytest.approx(0.025)
    assert decisions.p_above(found, 0.7) == pytest.approx(0.025)


def test_p_of_a_paired_difference_of_means_is_that_of_the_paired_t_test() -> None:
    from scipy import stats

    rng = np.random.default_rng(6)
    a, b = rng.normal(0.15, 1, 100), rng.normal(size=100)
    one, other = (bootstrap(lambda w, v=v: {"x": weighted_mean(v, w)}, 100, 4000) for v in (a, b))
    found = decisions.p_paired(a.mean() - b.mean(), one.resamples["x"] - other.resamples["x"], 100)
    assert found == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)
    assert decisions.p_paired(0.0, np.zeros(9), 9) == 1.0


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (10, 2), (31, 47), (400, 360)])
def test_mcnemar_is_that_of_statsmodels(fixed: int, broken: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    if fixed + broken:
        expected = tables.mcnemar([[50, fixed], [broken, 20]], exact=True).pvalue
        assert decisions.mcnemar(fixed, broken) == pytest.approx(expected)


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    ps = np.random.default_rng(5).beta(0.5, 3, 12).tolist()
    assert decisions.holm(ps) == pytest.approx(multitest.multipletests(ps, method="holm")[1])
    assert decisions.holm([]) == []


def test_resamples_that_do_not_spread_are_no_proof() -> None:
    assert decisions.p_paired(1.0, np.ones(1000), 4) == 0.125
    assert decisions.p_paired(0.0, np.zeros(1000), 4) == 1
