"""The report says how much luck the best of many needs, what stopping saved, and shows what was tried."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import search_front, search_plots
from tunesmith.report.search import _told, luck

SPACE = [
    {"key": "training.learning_rate", "kind": "loguniform", "values": [], "low": 1e-5, "high": 1e-2, "log": True},
    {"key": "training.adaptation", "kind": "choice", "values": ["full", "<lora>"], "low": 0, "high": 0, "log": False},
]


def record(**more: Any) -> dict[str, Any]:
    trials = [
        {
            "number": n,
            "values": {"training.learning_rate": 10.0 ** -(2 + n / 4), "training.adaptation": ["full", "<lora>"][n % 2]},
            "origin": "sampled",
            "status": "stopped" if n % 2 else "done",
            "value": 0.5 + n / 20,
            "curve": [[5, 0.4], [10, 0.5 + n / 20]],
            "done": 10 - 5 * (n % 2),
            "steps": 10,
            "error": "",
        }
        for n in range(8)
    ]
    plain = {"metric": "accuracy", "sign": 1, "rows": 100, "algorithm": "tpe", "scheduler": "asha", "space": SPACE, "winner": 7}
    counts = {
        "elapsed": 60.0,
        "cost": 90.0,
        "steps_planned": 80,
        "steps_done": 60,
        "ended_by": "",
        "seeds": [],
        "importances": {},
    }
    return {**plain, **counts, "trials": trials, **more}


def test_the_expected_luck_is_what_a_simulation_of_equal_trials_finds() -> None:
    rng, rows, trials = np.random.default_rng(0), 200, 20
    best = (rng.random((2000, trials, rows)) < 0.8).mean(axis=2).max(axis=1) - 0.8
    error = math.sqrt(0.8 * 0.2 / 800)
    found = luck(trials, rows, Estimate(0.8, 0.8 - 1.96 * error, 0.8 + 1.96 * error, 800, "wilson"))
    assert found is not None
    assert abs(found - best.mean()) < 0.004


def test_one_trial_needs_no_luck() -> None:
    assert luck(1, 100, Estimate(0.8, 0.7, 0.9, 100, "wilson")) is None
    assert luck(9, 100, Estimate(0.8, math.nan, math.nan, 100, "none")) is None


def test_what_stopping_saved_is_said() -> None:
    assert "Early stopping saved 25% of the updates: 4 trials were stopped" in _told(record())[1]


def test_seeds_for_which_the_budget_left_nothing_are_said_to_be_left_out() -> None:
    spent = record(ended_by="its 30 seconds were over", seeds_planned=2)
    assert "to be trained with 2 other seeds, and were not: the budget was spent" in _told(spent)[-1]
    assert not any("budget" in said for said in _told(record(seeds_planned=2)))


def test_the_pictures_show_every_trial_and_escape_what_is_in_it() -> None:
    drawn = search_plots.parallel(record())
    assert drawn.count("<polyline") == 8
    assert "&lt;lora&gt;" in drawn
    assert "<lora>" not in drawn
    assert search_plots.curves(record()).count("<polyline") == 8
    assert search_plots.best_so_far(record()).count("<circle") == 8


def test_the_recipes_own_value_outside_of_the_space_is_drawn_too() -> None:
    found = record()
    found["trials"][0]["values"] = {"training.learning_rate": 1.0, "training.adaptation": "bitfit"}
    del found["trials"][1]["values"]["training.adaptation"]
    assert search_plots.parallel(found).count("<polyline") == 8


def test_losses_of_many_sizes_are_drawn_by_ratios_and_rates_never() -> None:
    losses = [0.12, 0.13, 0.24, 0.5, 2.0, 3.0, 4.0]
    scale = search_plots.Scale.of(losses, sign=-1)
    assert scale.share(0.24) - scale.share(0.12) == pytest.approx(scale.share(4.0) - scale.share(2.0))
    assert [f"{tick:g}" for tick in scale.ticks()] == ["0.2", "0.5", "1", "2"]
    assert scale.share(100.0) == 1, "an outlier stands at the edge"
    assert not search_plots.Scale.of(losses, sign=1).log
    assert not search_plots.Scale.of([0.4, 0.5, 0.9], sign=-1).log
    assert search_plots.Scale.of([0.5, 0.5], sign=1).share(0.5) == pytest.approx(0.5)


def test_a_whole_section_is_drawn_with_its_name() -> None:
    section = {"key": "model", "kind": "choice", "values": [{"dropout": 0.1}], "low": 0, "high": 0, "log": False}
    found = record(space=[section], importances={"model": 1.0})
    for row in found["trials"]:
        row["values"] = {"model": {"dropout": 0.1}}
    assert ">model<" in search_plots.parallel(found)
    assert ">model<" in search_plots.importance(found)


def with_two(second: str, values: list[float | None], front: list[int], winner: int) -> dict[str, Any]:
    found = record(objectives=["accuracy", second], front=front, winner=winner, tolerance=0.01)
    for row, value in zip(found["trials"], values, strict=True):
        row["objectives"] = {} if value is None else {second: value}
    return found


def points(drawn: str, kind: str) -> list[tuple[float, float]]:
    pairs = re.findall(rf'class="dot {kind}" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    return [(float(x), float(y)) for x, y in pairs]


def test_the_front_is_drawn_among_all_trials_with_the_chosen_one() -> None:
    found = with_two("latency_ms", [1.0, 3.0, 2.0, 9.0, 4.0, 8.0, 6.0, 7.0], [0, 2, 4, 6, 7], 6)
    drawn = search_front.front(found)
    assert (len(points(drawn, "own")), len(points(drawn, "base")), len(points(drawn, "majority"))) == (1, 4, 3)
    assert "trial 6: 80.0\u202f%, latency (ms) 6" in drawn
    best = sorted(points(drawn, "base") + points(drawn, "own"))
    assert [y for _, y in best] == sorted((y for _, y in best), reverse=True), "slower ones are better"
    (line,) = re.findall(r'<polyline class="curve base" points="([^"]+)"', drawn)
    corners = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert corners[::2] == best
    assert corners[1] == (best[1][0], best[0][1]), "between two of them nothing better was found"


def test_a_metric_can_be_the_second_objective_and_a_missing_value_is_left_out() -> None:
    drawn = search_front.front(with_two("f1_macro", [0.5, None, 0.6, 0.7, 0.8, 0.9, 0.95, 0.91], [6, 7], 7))
    assert drawn.count("<circle") == 7
    assert "–" not in drawn
    assert "91.0\u202f%" in drawn
