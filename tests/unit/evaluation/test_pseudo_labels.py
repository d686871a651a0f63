"""Which rows a student learns from: by confidence, limited for each class, and how sure a calibrated teacher is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tunesmith.evaluation.pseudo_labels import select

pytestmark = pytest.mark.unit


def drawn(n: int = 500, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.choice(4, n, p=[0.7, 0.2, 0.1, 0.0]), rng.random(n).round(2)


@pytest.mark.parametrize("balance", [1.0, 1.5, 4.0, None])
def test_it_takes_the_surest_of_each_class_up_to_its_limit(balance: float | None) -> None:
    codes, confidence = drawn()
    shares = np.array([0.25, 0.25, 0.4, 0.1])
    taken = select(codes, confidence, 0.6, balance, shares)
    total = int((confidence >= 0.6).sum())
    for code in range(4):
        sure = np.flatnonzero((codes == code) & (confidence >= 0.6))
        most = len(sure) if balance is None else min(len(sure), math.ceil(balance * shares[code] * total - 1e-9))
        mine = np.flatnonzero(taken & (codes == code))
        assert len(mine) == most
        left = np.setdiff1d(sure, mine)
        if len(left) and len(mine):
            assert confidence[left].max() <= confidence[mine].min()
    assert not taken[confidence < 0.6].any()


def test_one_class_cannot_swallow_the_set() -> None:
    codes, confidence = np.zeros(100, np.int64), np.full(100, 0.99)
    assert select(codes, confidence, 0.9, 1.5, np.full(10, 0.1)).sum() == 15
    assert select(codes, confidence, 0.9, None, np.full(10, 0.1)).sum() == 100


def test_a_row_at_the_threshold_is_taken_and_of_equal_ones_the_first() -> None:
    codes, confidence = np.array([0, 0, 0, 1]), np.array([0.9, 0.9, 0.9, 0.8999])
    assert select(codes, confidence, 0.9, 1.0, np.array([0.5, 0.5])).tolist() == [True, True, False, False]
    assert select(codes, confidence, 0.9, None, np.array([0.5, 0.5])).tolist() == [True, True, True, False]


def test_where_nothing_is_sure_nothing_is_taken() -> None:
    assert not select(np.array([0, 1]), np.array([0.5, 0.6]), 0.9, 1.5, np.array([0.5, 0.5])).any()
