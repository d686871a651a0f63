"""The report's part on what was trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunesmith.report.adaptation import section

pytestmark = pytest.mark.unit


def run_with(told: Any) -> Any:
    return cast(Any, SimpleNamespace(manifest={"trained": told} if told else {}))


def test_a_plain_fine_tuning_has_no_such_part() -> None:
    assert section(run_with(None), cast(Any, None)) is None


def test_layer_groups_are_shown_with_their_begin_and_rate() -> None:
    groups = [
        {"name": "head", "parameters": 20, "step": 0, "learning_rate": 1e-3},
        {"name": "<b>.layer.1", "parameters": 1000, "step": 1200, "learning_rate": 9e-4},
    ]
    made = section(run_with({"adaptation": "bitfit", "parameters": 4080, "trained": 1020, "groups": groups}), cast(Any, None))
    assert made is not None
    assert "1,020 of 4,080 parameters: 25.00%" in made.html
    assert "BitFit" in made.html
    assert '<td class="name">head</td><td class="n">20</td><td class="n">the start</td><td class="n">0.001</td>' in made.html
    assert '&lt;b&gt;.layer.1</td><td class="n">1,000</td><td class="n">1,200</td><td class="n">0.0009</td>' in made.html


def test_a_way_without_groups_has_no_table() -> None:
    made = section(run_with({"adaptation": "linear-probe", "parameters": 10, "trained": 1, "groups": []}), cast(Any, None))
    assert made is not None
    assert "<table" not in made.html
