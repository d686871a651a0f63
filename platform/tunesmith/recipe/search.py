"""``search:``: which hyperparameters ``tunesmith tune`` looks for, how, and how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tunesmith.recipe.base import Section

Algorithm = Literal["random", "grid", "tpe", "gp"]
Scheduler = Literal["none", "asha", "pbt"]
ALGORITHMS: dict[Algorithm, str] = {"random": "at random", "grid": "by grid", "tpe": "by TPE", "gp": "by a Gaussian process"}
"""How values are chosen, in words."""

MEASURED = ("latency_ms", "size_mb", "train_seconds")
"""Objectives that every trial measures beside its task's metrics; less is better."""


class SearchSection(Section):
    """A search by ``tunesmith tune``; every other command checks it, and else passes over it. Trials are chosen on the
    validation split, and the test split is judged once, for the winner.
    """

    space: dict[str, Any] = Field(default_factory=dict)
    """Dotted key → the values it may take: ``{choice: [a, b]}``, ``{uniform: [low, high]}``, ``{loguniform: [low, high]}``,
    ``{randint: [low, high]}`` and ``{quniform: [low, high, step]}`` (both ends included, the last as far as the steps reach),
    ``{grid: [a, b]}``; with ``when: {KEY: VALUE}`` only where another searched key has that value."""

    algorithm: Algorithm = "tpe"
    """``random``; ``grid``, every combination; ``tpe``, tree-structured Parzen estimators (Bergstra et al. 2011); ``gp``, a
    Gaussian process (both of Optuna)."""

    scheduler: Scheduler = "asha"
    """``asha`` stops trials that lag behind others at the same evaluation (Li et al. 2020); ``pbt`` copies good trials over bad
    ones and changes their values meanwhile (Jaderberg et al. 2017); ``none`` lets all go on to their end."""

    num_samples: int = Field(default=20, ge=1)
    """Trials at most; with ``pbt`` the size of the population. ``grid`` makes all of its combinations."""

    time_budget_s: float | None = Field(default=None, gt=0)
    """Seconds after which the search ends with what it has; None is without limit. Of a search that is gone on with, the
    earlier sessions count."""

    cost_budget_s: float | None = Field(default=None, gt=0)
    """Core-seconds of all trials together after which it ends; GPU-seconds where trials have GPUs."""

    max_concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials at the same time; None is as many as the cluster has room for."""

    metric: str | None = None
    """What trials are compared by on the validation split; None is ``training.metric_for_best_model``."""

    mode: Literal["max", "min"] | None = None
    """Whether more (``max``) or less (``min``) of it is better; None knows it for the metrics of Tunesmith."""

    objectives: list[str] = Field(default_factory=list)
    """Several things to be good at: a metric first, then others, ``latency_ms`` (one example), ``size_mb`` (all parameters) or
    ``train_seconds``. The trials that no other beats in everything are the front."""

    tolerance: float = Field(default=0.01, ge=0)
    """Which point of the front wins: of those whose first objective is at most so much worse than the best, the one with the
    best second objective."""

    grace_period: int = Field(default=1, ge=1)
    """Evaluations that ``asha`` lets every trial have."""

    reduction_factor: int = Field(default=3, ge=2)
    """Of the trials that reach a rung, ``asha`` lets about one in so many go on; the next rung is so many times as far."""

    generations: int = Field(default=4, ge=2)
    """Into how many equal parts ``pbt`` cuts a training; after each, the population is looked at."""

    start_with_recipe: bool = True
    """The first trial has the recipe's own values, and is never stopped: the winner is held against it on the validation split.
    Under ``pbt`` it is one of the first generation."""

    trial_overrides: dict[str, Any] = Field(default_factory=dict)
    """Dotted key → value, for the trials only: fewer rows, or ``{training.num_workers: 1}``. A winner that is kept as it was
    trained has them too; one that is refitted has not."""

    winner: Literal["checkpoint", "refit"] = "checkpoint"
    """``checkpoint`` keeps the best trial's best checkpoint; ``refit`` trains its values anew, without ``trial_overrides``."""

    seeds: int = Field(default=1, ge=1)
    """With more than 1, the winning values are trained over so many seeds in all, to see how much of the result was luck; only
    within the budgets."""

    warm_start: list[str] = Field(default_factory=list)
    """Run folders whose results ``tpe`` and ``gp`` begin with: earlier searches, or single runs, as far as they say every
    objective."""

    max_failures: int = Field(default=2, ge=0)
    """How often a trial whose process died goes on from its last checkpoint."""

    give_up_after: int = Field(default=3, ge=1)
    """Failed trials, before one has succeeded, after which the search ends with the first reason."""

    max_checkpoint_gb: float | None = Field(default=None, gt=0)
    """Gigabytes that the checkpoints of all trials may take. A running trial keeps its best and its latest; one that lost keeps
    none, and one of the front keeps its own."""

    seed: int = 42
    """Seed of the search itself: the same seed suggests the same values after the same results."""
