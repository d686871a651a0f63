"""Rounds that have too few replies: who is waited for, who is asked again, what counts of those that have come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from support.federation import LocalGrid, altered, federation, hundredfold, lost, notes, of_nan, refusing, run, same, sites_of
from tunesmith.errors import TrainingFailed
from tunesmith.recipe import Recipe
from tunesmith_federated import rounds
from tunesmith_federated.flower import Message
from tunesmith_federated.protocol import Tensors
from unit.federated.conftest import ROWS

pytestmark = pytest.mark.unit


def test_a_quorum_that_never_comes_ends_with_what_each_site_said_and_can_be_gone_on_with(recipe: Any, tmp_path: Path) -> None:
    recipe = recipe.override("federation.min_sites=3", "federation.max_failed_rounds=2", "federation.round_timeout_s=0.2")
    sites = sites_of(recipe, ROWS, 3, tmp_path / "b")
    faulty = LocalGrid(sites, {"site-1": lambda m, answer: answer(m) if m.metadata.group_id in ("0", "1") else lost(m, answer)})
    with pytest.raises(
        TrainingFailed, match=r"round 2: only 2 of at least 3 sites[^\n]*2 times in a row\n  site-1: lost, Node"
    ):
        run(recipe, faulty, tmp_path / "b/server", ROWS)
    book = run(recipe, LocalGrid(sites), tmp_path / "b/server", ROWS)
    whole = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path / "a")), tmp_path / "a/server", ROWS)
    same(book.tensors()[0], whole.tensors()[0])


def test_a_site_that_refuses_in_every_round_is_told_of_once(recipe: Recipe, tmp_path: Path) -> None:
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path), {"site-1": refusing("train")})
    made = federation(recipe, grid, tmp_path / "server", ROWS)
    made.run()
    assert notes(made) == ["Round 1: site-1 refuses: the job has had its time of this site (limits.seconds)"]


def test_a_round_that_too_many_refuse_ends_at_once_and_can_be_gone_on_with(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override("federation.min_sites=3", "federation.round_timeout_s=3600")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path), {"site-1": refusing("train")})
    with pytest.raises(TrainingFailed, match=r"round 1: 1 of 3 sites refuse(.|\n)*site-1: refused, the job has had its time"):
        run(recipe, grid, tmp_path / "server", ROWS)
    grid.faults.clear()
    assert run(recipe, grid, tmp_path / "server", ROWS).standing.round == 3


def test_a_round_whose_quorum_may_yet_speak_is_not_ended(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PAUSE", 0.01)
    recipe = recipe.override("federation.min_sites=3", "training.num_train_epochs=1")
    grid = LocalGrid(sites_of(recipe, ROWS, 4, tmp_path), {"site-1": refusing("train")})
    held: dict[str, Message] = {}

    def slow(message: Message, answer: Callable[[Message], Message]) -> Message | None:
        if message.metadata.message_type == "train":
            return answer(message)
        held[message.metadata.message_id] = answer(message)
        return None

    def lets_it_speak(message: Message, answer: Callable[[Message], Message]) -> Message:
        if message.metadata.message_type == "train":
            grid._replies |= held
        return answer(message)

    grid.faults |= {"site-0": lets_it_speak, "site-3": slow}
    book = run(recipe, grid, tmp_path / "server", ROWS, grace_s=0.02)
    counted = {row["site"] for row in book.rows() if row["round"] == 1 and row["status"] == "replied"}
    assert counted == {"site-0", "site-2", "site-3"}


@pytest.mark.parametrize("change", [of_nan, hundredfold])
def test_a_rejected_site_is_told_of_once_and_not_asked_again_while_a_round_waits(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensors], None]
) -> None:
    monkeypatch.setattr(rounds, "PAUSE", 0.01)
    short = ("federation.min_sites=3", "federation.round_timeout_s=0.3", "federation.max_failed_rounds=2")
    recipe = recipe.override(*short, "training.num_train_epochs=1")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path), {"site-1": altered(change)})
    made = federation(recipe, grid, tmp_path / "server", ROWS)
    with pytest.raises(TrainingFailed, match=r"2 times in a row\n  site-1: rejected"):
        made.run()
    assert sum("the reply of site-1 is rejected" in one for one in notes(made)) == 1
    assert grid.asked.count(("site-1", "train")) == 2  # once in each attempt
    assert grid.asked.count(("site-0", "train")) == 1
    grid.faults.clear()  # its owner has mended it
    assert run(recipe, grid, tmp_path / "server", ROWS).standing.round == 1


def test_a_long_update_counts_once_the_cohort_is_as_long(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is long depends on who else has come: it is kept, and looked at again with every site that comes."""
    monkeypatch.setattr(rounds, "PAUSE", 0.01)
    recipe = recipe.override("federation.sites=5", "federation.min_sites=5", "training.num_train_epochs=1")
    faults = {f"site-{i}": altered(hundredfold) for i in (2, 3, 4)}
    grid = LocalGrid(sites_of(recipe, ROWS, 5, tmp_path), faults)
    away = {4, 5}

    def late(message: Message, answer: Callable[[Message], Message]) -> Message:
        if message.metadata.message_type == "train" and message.metadata.dst_node_id in away:
            away.remove(message.metadata.dst_node_id)
            return lost(message, answer)
        return faults["site-2"](message, answer)

    grid.faults |= {"site-3": late, "site-4": late}
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert {row["status"] for row in book.rows()} == {"replied"}
    assert grid.asked.count(("site-2", "train")) == 1


def test_what_a_site_has_sent_counts_in_a_repeated_round_though_it_is_gone(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PAUSE", 0.01)
    recipe = recipe.override("training.num_train_epochs=1", "federation.min_sites=3", "federation.round_timeout_s=5")
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path))
    calls: list[str] = []

    def lost_once(message: Message, answer: Callable[[Message], Message]) -> Message:
        if message.metadata.message_type != "train":
            return answer(message)
        calls.append("train")
        grid.online = {2, 3}  # the first site has replied, and leaves
        return lost(message, answer) if len(calls) == 1 else answer(message)

    grid.faults = {"site-1": lost_once}
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert {row["site"]: row["status"] for row in book.rows()} == dict.fromkeys(["site-0", "site-1", "site-2"], "replied")
    assert grid.asked.count(("site-0", "train")) == 1


class Killed(LocalGrid):
    """Its server is killed once it has taken the first reply of a round."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for count, message in enumerate(super().pull_messages(message_ids)):
            if count and message.metadata.message_type == "train":
                raise KeyboardInterrupt
            yield message


def test_what_a_site_has_sent_counts_after_a_restart_though_it_does_not_come_back(recipe: Recipe, tmp_path: Path) -> None:
    recipe, sites = recipe.override("training.num_train_epochs=1"), sites_of(recipe, ROWS, 3, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, Killed(sites), tmp_path / "server", ROWS)
    grid = LocalGrid(sites)
    grid.online = {2, 3}
    book = run(recipe, grid, tmp_path / "server", ROWS)
    assert {row["site"]: row["status"] for row in book.rows()} == dict.fromkeys(["site-0", "site-1", "site-2"], "replied")
    assert "site-0" not in {name for name, _ in grid.asked}
