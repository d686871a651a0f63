"""The last model is judged by the sites that can, once more where one is lost, and not for ever where one will not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.federation import LocalGrid, federation, lost, notes, refusing, run, sites_of
from tunesmith.errors import TrainingFailed
from tunesmith.recipe import Recipe
from tunesmith_federated import rounds
from tunesmith_federated.codec import decode, encode
from tunesmith_federated.flower import Message
from tunesmith_federated.messages import opened, replying
from tunesmith_federated.protocol import Reply
from unit.federated.conftest import ROWS

pytestmark = pytest.mark.unit


def lost_at_the_end(times: int) -> Any:
    """A site that is not there when the last model is judged, so many times."""
    left = [times]

    def fault(message: Message, answer: Callable[[Message], Message]) -> Message:
        if message.metadata.message_type != "evaluate" or not left[0]:
            return answer(message)
        left[0] -= 1
        return lost(message, answer)

    return fault


def test_a_site_that_is_lost_in_the_last_judgement_is_asked_again(recipe: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rounds, "PAUSE", 0.01)
    recipe = recipe.override("training.num_train_epochs=1", "federation.min_sites=3")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8), {"site-1": lost_at_the_end(2)})
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert (book.standing.ended, book.standing.judged_by[1]["n"]) == (True, 24)
    assert [kind for _, kind in grid.asked].count("evaluate") == 5


def test_what_a_judgement_rests_on_is_kept_by_round(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override("training.num_train_epochs=1")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8), {"site-1": lost_at_the_end(99)})
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert {number: told["n"] for number, told in book.standing.judged_by.items()} == {0: 24, 1: 16}
    assert {row["site"]: row["status"] for row in book.rows() if row["round"] == 2}["site-1"] == "lost"


def test_a_last_judgement_that_nobody_makes_is_not_the_end(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override("training.num_train_epochs=1", "federation.round_timeout_s=0.2")
    faults = {f"site-{i}": lost_at_the_end(99) for i in range(3)}
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8), faults)
    with pytest.raises(TrainingFailed, match=r"no site has judged the last model\n  site-0: lost(.|\n)*command asks again"):
        run(recipe, grid, tmp_path / "server", ROWS)
    own = recipe.override("data.test=own.csv", check_paths=False)
    made = federation(own, grid, tmp_path / "own", ROWS)
    assert not made.run().standing.ended
    assert "No site has judged the last model" in notes(made)[-1]
    grid.faults.clear()
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert (book.standing.ended, sorted(book.standing.judged)) == (True, [0, 1])


def test_sites_that_are_offline_at_the_end_have_not_judged(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override("training.num_train_epochs=1", "federation.round_timeout_s=0.2")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8))

    def all_leave(message: Message, answer: Callable[[Message], Message]) -> Message:
        grid.online = set() if message.metadata.message_type == "train" else grid.online
        return answer(message)

    grid.faults = {"site-2": all_leave}
    with pytest.raises(TrainingFailed, match=r"no site has judged the last model\n  site-0: lost, it is offline"):
        run(recipe, grid, tmp_path / "server", ROWS)


def test_who_refuses_the_last_judgement_has_answered(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override("training.num_train_epochs=1", "federation.round_timeout_s=3600")
    faults = {f"site-{i}": refusing("evaluate") for i in range(3)}
    book = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8), faults), tmp_path / "server", ROWS)
    assert (book.standing.ended, book.standing.judged[1]) == (True, {})


def test_a_last_judgement_that_is_rejected_is_not_waited_for(recipe: Recipe, tmp_path: Path) -> None:
    def other_round(message: Message, answer: Callable[[Message], Message]) -> Message:
        reply = Reply.from_json(opened(answer(message), decode).words)
        if reply.kind != "evaluate":
            return answer(message)
        return replying(replace(reply, round=7), encode({}), encode({}), message)

    recipe = recipe.override("training.num_train_epochs=1", "federation.min_sites=3", "federation.round_timeout_s=3600")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8), {"site-1": other_round})
    made = federation(recipe, grid, tmp_path / "server", ROWS)
    book = made.run()
    assert (book.standing.ended, book.standing.judged_by[1]["n"]) == (True, 16)
    assert sum("the reply of site-1 is rejected" in one for one in notes(made)) == 1


def test_who_has_held_back_nothing_is_not_asked_for_a_last_judgement(recipe: Any, tmp_path: Path) -> None:
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path))
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert book.standing.ended
    assert "evaluate" not in {kind for _, kind in grid.asked}
