"""How well scores tell two sets apart: agrees with scikit-learn, and the intervals hold the truth."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tunesmith.evaluation.suites.separation import auroc, curve, tpr_at_fpr

pytestmark = pytest.mark.unit


def sides(n: int, m: int, apart: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(apart, 1, n), rng.normal(0, 1, m)


def test_the_area_is_scikit_learns() -> None:
    positives, negatives = (np.round(one, 1) for one in sides(80, 120, 0.7, np.random.default_rng(0)))  # with ties
    truth = np.repeat([1, 0], [80, 120])
    expected = roc_auc_score(truth, np.concatenate([positives, negatives]))
    assert auroc(positives, negatives, 0.95).value == pytest.approx(expected)


def test_the_rate_lets_no_more_than_its_share_pass() -> None:
    negatives = np.arange(200.0)
    assert tpr_at_fpr(np.array([197.0, 197.5, 198, 199]), negatives, 0.01, 0.95).value == 0.75, "two of 200 pass, above 197"
    assert tpr_at_fpr(np.array([99.0, 100]), np.arange(99.0), 0.01, 0.95).value == 1, "none of 99 may pass"
    assert tpr_at_fpr(np.full(50, 3.0), np.full(300, 3.0), 0.01, 0.95).value == 0, "what is equal is not told apart"


@pytest.mark.parametrize(("n", "m"), [(50, 50), (500, 100), (300, 1000), (2000, 2000)])
@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_the_intervals_of_area_and_rate_hold_the_truth(n: int, m: int, apart: float) -> None:
    normal, rng = NormalDist(), np.random.default_rng((n, m, int(apart)))
    area, rate = normal.cdf(apart / np.sqrt(2)), 1 - normal.cdf(normal.inv_cdf(0.99) - apart)
    held = np.zeros(2)
    for _ in range(300):
        found = sides(n, m, apart, rng)
        one, other = auroc(*found, 0.95), tpr_at_fpr(*found, 0.01, 0.95)
        held += [one.low <= area <= one.high, other.low <= rate <= other.high]
        assert other.low <= other.value <= other.high
    assert held[0] >= 0.91 * 300
    assert held[1] >= 0.94 * 300


def test_the_curve_rises_from_none_to_all() -> None:
    points = np.array(curve(*sides(3000, 3000, 1.0, np.random.default_rng(1))))
    assert len(points) <= 110
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()
    assert curve(np.ones(3), np.ones(4)) == [(0.0, 0.0), (1.0, 1.0)]
