"""The verdict in one sentence says what the interval allows, and no more."""

from __future__ import annotations

import pytest

from tunesmith.evaluation.results import Baseline, Evaluation
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report.words import tone_of, verdict


def judged(
    metric: str, value: float, before: float | None, low: float = 0.0, high: float = 0.0, key: str = "base model"
) -> Evaluation:
    own = Estimate(value, value - 0.02, value + 0.02, 400, "wilson")
    baselines = {}
    if before is not None:
        other = Estimate(before, before - 0.02, before + 0.02, 400, "wilson")
        difference = Estimate(value - before, low, high, 400, "mover")
        baselines[key] = Baseline("the pre-trained model", {metric: other}, {metric: difference})
    return Evaluation("r", "text-classification", "test", 400, metric, {metric: own}, baselines=baselines)


@pytest.mark.parametrize(
    ("found", "tone", "part"),
    [
        (judged("accuracy", 0.9, 0.5, 0.35, 0.45), "better", "raised accuracy from 50.0\u202f% to 90.0\u202f%"),
        (judged("log_loss", 0.2, 0.9, -0.8, -0.6), "better", "lowered log loss from 0.900 to 0.200"),
        (judged("accuracy", 0.9, 0.89, -0.02, 0.04), "unclear", "no clear difference"),
        (judged("accuracy", 0.5, 0.9, -0.45, -0.35), "worse", "did harm"),
        (judged("accuracy", 0.9, 0.5, 0.35, 0.45, "majority class"), "better", "guessing reaches 50.0"),
        (judged("accuracy", 0.5, 0.5, -0.02, 0.02, "majority class"), "unclear", "not clearly better than guessing"),
        (judged("accuracy", 0.9, None), "alone", "reaches accuracy of 90.0"),
    ],
)
def test_the_sentence_follows_the_interval(found: Evaluation, tone: str, part: str) -> None:
    said = verdict(found)
    assert said.tone == tone
    assert part in said.sentence
    assert "400 held-out examples" in said.detail


def test_a_difference_without_an_interval_proves_nothing() -> None:
    assert tone_of("accuracy", Estimate(0.5, float("nan"), float("nan"), 1, "none")) == "unclear"
