"""Asynchronous successive halving: which trials are stopped because others were better at the same point.

Li et al. 2020, arXiv:1810.05934, in its stopping form (as Ray Tune has it): a trial that comes to a rung goes on if its score
is among the best share of those that have come there so far; nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tunesmith.tuning.trials import Trial


def goes_on(trial: Trial, trials: Iterable[Trial], *, grace_period: int, reduction_factor: int) -> bool:
    """Whether a trial goes on after its latest evaluation.

    Rungs are at ``grace_period`` evaluations, ``reduction_factor`` times as many, and so on. The recipe's own values are never
    stopped: the winner is held against them.

    >>> from tunesmith.tuning.trials import Report
    >>> worse, better = (Trial(n, {}, reports=(Report(10, score),)) for n, score in enumerate((0.5, 0.9)))
    >>> goes_on(worse, [worse], grace_period=1, reduction_factor=3)
    True
    >>> goes_on(worse, [worse, better], grace_period=1, reduction_factor=3)
    False
    """
    rung = len(trial.reports)
    if trial.origin == "recipe" or not is_rung(rung, grace_period, reduction_factor):
        return True
    scores = [reached(one, rung) for one in trials if len(one.reports) >= rung and one.origin in ("recipe", "sampled")]
    finite = [score if np.isfinite(score) else -np.finfo(float).max for score in scores]
    mine = reached(trial, rung)
    return bool(np.isfinite(mine) and mine >= np.quantile(finite, 1 - 1 / reduction_factor))


def is_rung(evaluations: int, grace_period: int, reduction_factor: int) -> bool:
    """Whether trials are compared after so many evaluations.

    >>> [n for n in range(1, 30) if is_rung(n, 2, 3)]
    [2, 6, 18]
    """
    rung = grace_period
    while rung < evaluations:
        rung *= reduction_factor
    return rung == evaluations


def reached(trial: Trial, rung: int) -> float:
    """The best score of a trial's first ``rung`` evaluations."""
    return max(one.score for one in trial.reports[:rung])
