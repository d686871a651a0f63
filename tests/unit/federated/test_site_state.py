"""What a site keeps between rounds belongs to the round of its own that counted last."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from support.federation import LocalGrid, federation, federation_recipe, lost, sites_of
from tunesmith_federated.protocol import Ask
from tunesmith_federated.site_state import SiteState
from unit.federated.conftest import ROWS, SGD

pytestmark = pytest.mark.unit


def kept(state: SiteState, number: int, counted: int | None = None) -> float | None:
    found = state.before(number, counted)
    return float(found["c"]) if found else None


def test_a_round_begins_from_the_last_that_counted_however_many_have_not(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    for number, counted in ((1, 0), (2, None), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2)):
        assert kept(state, number, counted) == (None if number == 1 else min(number - 1, 2))
        state.keep(number, {"c": torch.tensor(float(number))}, counted)
    assert kept(state, 8) == 7
    assert kept(state, 8, 2) == 2
    assert kept(state, 8, 0) is None
    assert kept(state, 6, 99) == 5, "never what a later round has left"
    assert sorted(file.name[6:12] for file in tmp_path.iterdir()) == ["000002", "000005", "000006", "000007"]


def test_a_question_says_what_counted_only_where_it_is_not_the_round_before() -> None:
    ask = Ask("train", "job", 4, 9, "", "")
    for plain in (None, 3):
        assert replace(ask, counted=plain).to_json() == ask.to_json()
    assert "counted" not in json.loads(ask.to_json())
    assert Ask.from_json(replace(ask, counted=2).to_json()).counted == 2


@pytest.mark.parametrize("restarted", [False, True])
def test_the_servers_variate_stays_the_mean_of_the_sites_though_a_reply_was_lost(
    bert: Path, tmp_path: Path, restarted: bool
) -> None:
    recipe = federation_recipe(
        bert, tmp_path / "recipe", {**SGD, "num_train_epochs": 3}, min_sites=1, sites=2, method="scaffold"
    )
    sites, rounds = sites_of(recipe, ROWS[:32], 2, tmp_path), []

    def first_is_lost(message: Any, answer: Any) -> Any:
        reply = answer(message)
        if message.metadata.message_type == "train":
            rounds.append(message.metadata.group_id)
            if restarted and rounds == ["1", "2"]:
                raise KeyboardInterrupt
        return lost(message, None) if rounds == ["1"] else reply

    grid = LocalGrid(sites, {"site-1": first_is_lost})
    if restarted:
        with pytest.raises(KeyboardInterrupt):
            federation(recipe, grid, tmp_path / "server", ROWS).run()
    book = federation(recipe, grid, tmp_path / "server", ROWS).run()
    lines = [row["status"] for row in book.rows() if row["site"] == "site-1" and row["round"] <= 3]
    assert lines == ["lost", "replied", "replied"]
    own = [SiteState(tmp_path / site.name / "job").before(4) for site in sites]
    for name, variate in book.tensors()[1].items():
        torch.testing.assert_close(variate, (own[0][name] + own[1][name]) / 2, rtol=0, atol=1e-6, msg=name)
