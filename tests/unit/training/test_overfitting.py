"""Overfitting is told by the rule, and not by chance."""

from __future__ import annotations

import pytest

from tunesmith.training.overfitting import overfitting


def lines(*pairs: tuple[float, float]) -> list[dict[str, object]]:
    return [{"split": "validation", "step": 10 * k, "loss": loss, "gap": gap} for k, (loss, gap) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    "told",
    [
        lines((0.5, 0.0), (0.4, 0.1), (0.3, 0.3)),  # the gap grows while validation still gets better
        lines((0.5, 0.1), (0.6, 0.0), (0.7, 0.0)),  # both get worse: it diverges, but learns nothing by heart
        lines((0.5, 0.0), (0.6, 0.2), (0.4, 0.1), (0.5, 0.2)),  # once is chance
        lines((0.5, 0.0), (0.6, 0.2), (0.7, 0.3), (0.4, 0.1)),  # it was passed
        [],
    ],
)
def test_it_is_not_told_without_need(told: list[dict[str, object]]) -> None:
    assert overfitting(told) is None


def test_it_is_told_when_both_hold_twice_and_since_when() -> None:
    found = overfitting([{"split": "train", "step": 1, "loss": 9.0}, *lines((0.5, 0.0), (0.4, 0.1), (0.5, 0.3), (0.6, 0.5))])
    assert found is not None
    assert (found.best_step, found.step) == (20, 40)
    assert (found.best_gap, found.gap) == (0.1, 0.5)
    assert "since step 20 the validation loss rose from 0.4 to 0.6" in found.sentence()


def test_while_training_goes_on_it_is_said_so_far() -> None:
    found = overfitting(lines((0.4, 0.1), (0.5, 0.3), (0.6, 0.5)))
    assert found is not None
    assert found.sentence(so_far=True) == found.sentence().replace("Overfitting:", "Overfitting so far:")


def test_a_history_without_gaps_says_nothing() -> None:
    assert overfitting([{"split": "validation", "step": 1, "loss": 1.0}]) is None
