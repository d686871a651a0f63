"""The trade-off of several ways of training: every point in its place, every label beside its own point and over no other."""

from __future__ import annotations

import math
import re

import pytest

from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import choices

pytestmark = pytest.mark.unit


def at(value: float, reach: float = 0.02) -> Estimate:
    return Estimate(value, value - reach, value + reach, 5, "student-t")


def crowd(n: int) -> list[choices.Choice]:
    return [
        choices.Choice(f"way {k}", at(0.9 + 0.004 * (k % 5)), at(0.2 + 0.01 * k), "own", "f" if k % 2 else "") for k in range(n)
    ]


def dots(drawn: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle class="dot [^"]*" cx="([\d.]+)" cy="([\d.]+)"', drawn)]


def texts(drawn: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'<text class="mark [^"]*" x="([-\d.]+)" y="([-\d.]+)" text-anchor="start">([^<]*)<', drawn)
    return [(text, float(x), float(y)) for x, y, text in found]


def test_points_stand_in_the_order_of_their_values() -> None:
    rows = [choices.Choice("a", at(0.2), at(0.9)), choices.Choice("b", at(0.5), at(0.5)), choices.Choice("c", at(0.9), at(0.1))]
    places = dots(str(choices.choices("new", "old", "accuracy", rows)))
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted(y for _, y in places), "up is more, and y goes down"
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x1 - x0) / (x2 - x0) == pytest.approx(3 / 7, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.5, abs=0.01)


def test_labels_hide_neither_points_nor_each_other() -> None:
    drawn = str(choices.choices("new", "old", "accuracy", crowd(20)))
    placed = texts(drawn)
    assert len(placed) >= 15, "nearly all have room"
    boxes = [(x, y - 9, x + 5.5 * len(text), y + 2) for text, x, y in placed]
    for k, one in enumerate(boxes):
        assert not any(choices._meet(one, other) for other in boxes[k + 1 :])
        assert not any(one[0] < x < one[2] and one[1] < y < one[3] for x, y in dots(drawn))
        assert 0 <= one[0] < one[2] <= 760


def test_a_family_is_joined_in_the_order_given_and_every_point_has_its_intervals() -> None:
    rows = [choices.Choice(str(k), at(0.5 + 0.1 * k), at(0.5), "own", "pull") for k in (0, 2, 1)]
    drawn = str(choices.choices("new", "old", "accuracy", rows))
    (line,) = re.findall(r'<polyline class="curve thread" points="([^"]*)"', drawn)
    assert [float(pair.split(",")[0]) for pair in line.split()] == [x for x, _ in dots(drawn)]
    assert drawn.count("whisker thin") == 2 * 3


def test_what_has_no_value_is_left_out_and_names_cannot_become_markup() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan, 0, "none")
    evil = "<script>alert(1)</script>"
    rows = [
        choices.Choice(evil, at(0.2), at(0.9)),
        choices.Choice("b", at(0.5), nothing),
        choices.Choice("c", at(0.6), at(0.6, math.nan)),
    ]
    drawn = str(choices.choices(evil, "old", "accuracy", rows))
    assert len(dots(drawn)) == 2
    assert "<script" not in drawn
    assert "nan" not in drawn
    assert str(choices.choices("new", "old", "accuracy", rows[:1])) == ""
