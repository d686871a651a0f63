"""Lines with their names at their ends: none hides another, and what is no number is left out."""

from __future__ import annotations

import re

import pytest

from tunesmith.report.line_chart import LINE, lines

pytestmark = pytest.mark.unit


def test_fifteen_lines_that_end_together_have_names_apart() -> None:
    series = [{"label": f"kind <{k}>", "points": [(0, 0.9), (1, 0.5), (5, 0.5)]} for k in range(15)]
    drawn = lines({"x": "severity", "y": "accuracy", "whole": True, "series": series})
    heights = sorted(float(y) for y in re.findall(r'class="mark"[^>]* y="([\d.]+)"', drawn))
    assert len(heights) == 15
    assert all(one - other >= LINE - 0.2 for one, other in zip(heights[1:], heights, strict=False))
    assert "kind &lt;3&gt;" in drawn
    assert "90.0\u202f%" in drawn


def test_undefined_values_are_left_out() -> None:
    nothing = {"x": "severity", "y": "f1", "series": [{"label": "a", "points": [(0, float("nan"))]}]}
    assert lines(nothing) == ""
    some = {**nothing, "series": [*nothing["series"], {"label": "b", "points": [(0, 0.2), (1, float("nan")), (3, 0.1)]}]}
    assert "nan" not in lines(some)


def test_rates_on_logarithmic_axes_begin_where_the_points_do() -> None:
    points = [(0.0, 0.0), (0.0002, 0.01), (0.1, 0.4), (1.0, 1.0)]
    drawn = lines({"x": "fpr", "y": "tpr", "log": True, "diagonal": True, "series": [{"label": "a", "points": points}]})
    assert 'class="ideal"' in drawn
    assert "0.1\u202f%" in drawn
    assert "100\u202f%" in drawn
