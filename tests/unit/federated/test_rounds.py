"""Rounds over sites in this process: the same numbers as one training, whoever comes first, whatever dies, whoever lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.federation import LocalGrid, altered, federation, federation_recipe, hundredfold, lost, of_nan, run, same, sites_of
from support.fits import prepare_in_memory
from tunesmith.errors import UserError
from tunesmith.recipe import Recipe
from tunesmith.training.fit import FitContext, FitData, fit
from tunesmith_federated import asked_recipe
from tunesmith_federated.codec import decode, encode
from tunesmith_federated.flower import Message
from tunesmith_federated.messages import MODEL, opened, replying
from tunesmith_federated.protocol import Ask, Reply, Tensors
from tunesmith_federated.roster import Roster
from tunesmith_federated.server_state import Book
from unit.federated.conftest import ROWS, SGD

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("training", [{**SGD, "num_train_epochs": 2}, {"num_train_epochs": 1, "learning_rate": 1e-3}])
def test_one_site_alone_learns_what_one_training_learns(bert: Path, tmp_path: Path, training: dict[str, Any]) -> None:
    recipe = federation_recipe(bert, tmp_path, training, min_sites=1, sites=1)
    spec, data = prepare_in_memory(recipe.override("training.eval_strategy=no"), [*ROWS, *ROWS[:16]])
    central = fit(spec, FitData(data.train), FitContext()).model.state_dict()
    book = run(recipe, LocalGrid(sites_of(recipe, ROWS, 1, tmp_path)), tmp_path / "server", ROWS)
    federated = book.tensors()[0]
    assert book.standing.round == training["num_train_epochs"]
    same(federated, {name: central[name] for name in federated}, tolerance=2e-6)
    moved = max(float((federated[name] - start).abs().max()) for name, start in spec_start(spec).items() if name in federated)
    assert moved > 1e-3


def spec_start(spec: Any) -> Tensors:
    torch.manual_seed(spec.recipe.training.seed)
    return dict(spec.task.build_model(spec.recipe, spec.preprocessing.state).state_dict())


def test_the_order_of_arrival_changes_no_bit(recipe: Any, tmp_path: Path) -> None:
    found = []
    for name, backwards in (("forth", False), ("back", True)):
        grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path / name), backwards=backwards)
        found.append(run(recipe, grid, tmp_path / name / "server", ROWS).tensors()[0])
    same(*found)


@pytest.mark.parametrize("method", ["fedavg", "fedavgm", "fedadam", "fedprox", "scaffold", "fedbn", "median"])
@pytest.mark.parametrize("died", ["server between rounds", "server in a round"])
def test_a_killed_server_goes_on_to_the_same_numbers(recipe: Any, tmp_path: Path, method: str, died: str) -> None:
    recipe = recipe.override(f"federation.method={method}", "federation.fraction_train=0.7")
    whole = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path / "a", holdout=8)), tmp_path / "a/server", ROWS)
    sites = sites_of(recipe, ROWS, 3, tmp_path / "b", holdout=8)
    calls = 0

    def dies(message: Message, answer: Callable[[Message], Message]) -> Message:
        nonlocal calls
        calls += message.metadata.message_type == "train"
        if calls == (3 if died == "server between rounds" else 4):
            raise KeyboardInterrupt
        return answer(message)

    grid = LocalGrid(sites, {f"site-{i}": dies for i in range(3)})
    with pytest.raises(KeyboardInterrupt):
        run(recipe, grid, tmp_path / "b/server", ROWS)
    book = run(recipe, LocalGrid(sites), tmp_path / "b/server", ROWS)
    same(book.tensors()[0], whole.tensors()[0])
    same(book.tensors()[1], whole.tensors()[1])
    assert book.standing == whole.standing
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in one.rows()] for one in (book, whole)]
    assert untimed[0] == untimed[1]


def short_of_a_key(update: Tensors) -> None:
    for name in list(update)[:1]:
        del update[name]


def test_a_site_that_leaves_out_what_comes_beside_its_update_is_rejected(recipe: Any, tmp_path: Path) -> None:
    def fault(message: Message, answer: Callable[[Message], Message]) -> Message:
        reply = answer(message)
        parcel = opened(reply, decode)
        return replying(Reply.from_json(parcel.words), encode(parcel.model), encode({}), message)

    recipe = recipe.override("federation.method=scaffold", "training.num_train_epochs=1")
    sites = sites_of(recipe, ROWS, 3, tmp_path)
    book = federation(recipe, LocalGrid(sites, {"site-1": fault}), tmp_path / "server", ROWS).run()
    bad = [row for row in book.rows() if row["site"] == "site-1" and row["round"] == 1]
    assert [row["status"] for row in bad] == ["rejected"]
    assert "its extras lacks" in bad[0]["reason"]


@pytest.mark.parametrize("change", [of_nan, hundredfold, short_of_a_key])
def test_a_bad_update_is_thrown_away_with_its_reason_and_the_round_goes_on(
    recipe: Any, tmp_path: Path, change: Callable[[Tensors], None]
) -> None:
    sites = sites_of(recipe, ROWS, 3, tmp_path)
    made = federation(recipe, LocalGrid(sites, {"site-1": altered(change)}), tmp_path / "server", ROWS)
    book = made.run()
    bad = [row for row in book.rows() if row["site"] == "site-1" and row["round"] <= 3]
    assert [row["status"] for row in bad] == ["rejected"] * 3
    assert all(row["reason"] for row in bad)
    assert any("site-1 is rejected" in str(event.get("message")) for event in made.told)  # type: ignore[attr-defined]
    alone = [site for site in sites_of(recipe, ROWS, 3, tmp_path / "two") if site.name != "site-1"]
    without = run(recipe, LocalGrid(alone), tmp_path / "two/server", ROWS)
    same(book.tensors()[0], without.tensors()[0])


def test_a_lost_site_is_gone_without_and_comes_back(recipe: Any, tmp_path: Path) -> None:
    seen: list[int] = []

    def lost_in_round_2(message: Message, answer: Callable[[Message], Message]) -> Message:
        number = int(message.metadata.group_id)
        seen.append(number)
        return lost(message, answer) if number == 2 else answer(message)

    book = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path), {"site-0": lost_in_round_2}), tmp_path / "server", ROWS)
    said = {row["round"]: (row["status"], row["reason"]) for row in book.rows() if row["site"] == "site-0"}
    assert said == {1: ("replied", ""), 2: ("lost", "Node Unavailable"), 3: ("replied", "")}


def test_a_silent_site_is_late_and_the_round_ends_in_time(recipe: Any, tmp_path: Path) -> None:
    recipe = recipe.override("federation.round_timeout_s=0.3")
    silent = {"site-2": lambda message, answer: answer(message) if "query" in message.metadata.message_type else None}
    book = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path), silent), tmp_path / "server", ROWS)
    late = [row for row in book.rows() if row["site"] == "site-2"]
    assert {row["status"] for row in late} == {"late"}
    assert late[0]["reason"] == "no word in 0.3 s"


def test_a_site_with_other_labels_is_refused_before_round_1_by_name(bert: Path, tmp_path: Path) -> None:
    recipe = federation_recipe(bert, tmp_path / "recipe", {**SGD, "num_train_epochs": 1}, min_sites=2, sites=3)
    sites = sites_of(recipe, ROWS, 3, tmp_path)

    class Other:
        def open(self, recipe: Any, task: Any) -> Any:
            raise UserError("3 rows have the label 'flu', which data.labels lacks")

    sites[1]._holding = Other()
    made = federation(recipe, LocalGrid(sites), tmp_path / "server", ROWS)
    book = made.run()
    assert {row["site"] for row in book.rows()} == {"site-0", "site-2"}
    assert any("site-1 does not take part: 3 rows have" in str(one.get("message")) for one in made.told)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"2 of at least 3 sites take part(.|\n)*site-1: 3 rows have the label 'flu'"):
        run(recipe.override("federation.min_sites=3"), LocalGrid(sites), tmp_path / "other", ROWS)


def test_a_model_too_large_for_the_line_is_refused_before_round_1(recipe: Any, tmp_path: Path) -> None:
    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path))
    with pytest.raises(UserError, match=r"MB a message(.|\n)*lora.*bfloat16"):
        run(recipe, grid, tmp_path / "server", ROWS, most_bytes=1000)
    assert {kind for _, kind in grid.asked} == {"query.describe"}


def test_the_best_round_is_kept_by_what_the_sites_held_back(recipe: Any, tmp_path: Path) -> None:
    recipe = recipe.override("training.metric_for_best_model=accuracy", "training.greater_is_better=true")
    book = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path, holdout=8)), tmp_path / "server", ROWS)
    judged = {number: metrics["accuracy"] for number, metrics in book.standing.judged.items()}
    assert set(judged) == {0, 1, 2, 3}
    assert judged[book.standing.best or 0] == max(judged[number] for number in (1, 2, 3))


def test_bfloat16_travels_at_half_the_bytes(recipe: Any, tmp_path: Path) -> None:
    books = {}
    for dtype in ("float32", "bfloat16"):
        one = recipe.override(f"federation.dtype={dtype}")
        books[dtype] = run(one, LocalGrid(sites_of(one, ROWS, 3, tmp_path / dtype)), tmp_path / dtype / "server", ROWS)
    sent = {dtype: book.rows()[0]["bytes_received"] for dtype, book in books.items()}
    assert sent["bfloat16"] * 2 == sent["float32"]
    both = [book.tensors()[0] for book in books.values()]
    assert max(float((both[0][name] - both[1][name]).abs().max()) for name in both[0]) < 2e-2


def test_only_what_is_trained_travels(recipe: Any, tmp_path: Path) -> None:
    recipe = recipe.override("training.adaptation=lora")
    grid, seen = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path)), set()

    def watch(message: Message, answer: Callable[[Message], Message]) -> Message:
        seen.update(decode(message.content[MODEL]))
        return answer(message)

    grid.faults = {"site-0": watch}
    run(recipe, grid, tmp_path / "server", ROWS)
    assert seen
    assert all("lora" in name or "classifier" in name for name in seen)


def test_sites_are_drawn_by_the_seed_and_all_get_their_turn(recipe: Any, tmp_path: Path) -> None:
    recipe = recipe.override("federation.fraction_train=0.5", "federation.min_sites=2", "training.num_train_epochs=8")
    drawn = []
    for name in ("a", "b"):
        book = run(recipe, LocalGrid(sites_of(recipe, ROWS, 4, tmp_path / name)), tmp_path / name / "server", ROWS)
        drawn.append([(row["round"], row["site"]) for row in book.rows()])
    assert drawn[0] == drawn[1]
    counts = np.unique([site for number, site in drawn[0] if number <= 8], return_counts=True)
    assert counts[1].sum() == 16
    assert len(counts[0]) == 4


def test_a_site_that_lost_the_question_is_asked_once_more(recipe: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    def deaf_once(message: Message, answer: Callable[[Message], Message]) -> Message | None:
        asked.append(message.metadata.group_id)
        return None if asked.count("2") == 1 and message.metadata.group_id == "2" else answer(message)

    grid = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path / "a"), {"site-1": deaf_once})
    book = run(recipe, grid, tmp_path / "a/server", ROWS, again_s=0.2)
    whole = run(recipe, LocalGrid(sites_of(recipe, ROWS, 3, tmp_path / "b")), tmp_path / "b/server", ROWS)
    assert asked.count("2") == 2
    assert {row["status"] for row in book.rows()} == {"replied"}
    same(book.tensors()[0], whole.tensors()[0])


def test_a_site_that_refused_is_asked_anew_once_it_was_gone_and_is_back(recipe: Any, tmp_path: Path) -> None:
    def refuses(message: Message, _: Any) -> Message:
        reply = Reply("site-0", "describe", "job", 0, refused="not allowed here")
        return replying(reply, encode({}), encode({}), message)

    grid, roster = LocalGrid(sites_of(recipe, ROWS, 2, tmp_path), {"site-0": refuses}), Roster()
    ask = Ask("describe", "job", 0, 3, asked_recipe.for_sites(recipe), "")
    roster.refresh(grid, ask, 5)
    assert roster.refused == {"site-0": "not allowed here"}
    grid.faults.clear()  # its owner has allowed it, and starts the site again
    for online in ({1, 2}, {2}, {1, 2}):
        grid.online = online
        roster.refresh(grid, ask, 5)
    assert (list(roster.online()), roster.refused) == (["site-0", "site-1"], {})
    assert [name for name, _ in grid.asked] == ["site-0", "site-1", "site-0"]


@pytest.mark.parametrize(("method", "fits"), [("fedavg", True), ("scaffold", False)])
def test_what_a_method_sends_beside_the_model_counts_in_a_message(
    recipe: Recipe, tmp_path: Path, method: str, fits: bool
) -> None:
    recipe = recipe.override(f"federation.method={method}", "training.num_train_epochs=1")
    grid, most = LocalGrid(sites_of(recipe, ROWS, 3, tmp_path)), 150_000
    if fits:
        sent = run(recipe, grid, tmp_path / "server", ROWS, most_bytes=most).rows()[0]["bytes_sent"]
        assert most / 2 < sent < most
        return
    with pytest.raises(UserError, match=r"MB of them for federation\.method: scaffold(.|\n)*or fedavg"):
        run(recipe, grid, tmp_path / "server", ROWS, most_bytes=most)
    assert {kind for _, kind in grid.asked} == {"query.describe"}


def test_a_simulation_reads_a_recipe_of_any_size_and_real_sites_do_not(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_recipe, "MOST_PARTS", 5)
    recipe = recipe.override("training.num_train_epochs=1", "name=of-any-size")
    sites = sites_of(recipe, ROWS, 2, tmp_path)
    assert run(recipe, LocalGrid(sites), tmp_path / "server", ROWS).standing.round == 1
    with pytest.raises(UserError, match="more than 5 values, which a site does not read"):
        run(recipe, LocalGrid(sites), tmp_path / "real", [])


def test_a_run_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    state = {"round": 1, "failed": 0, "labels": None, "sites": {}, "judged": {"0": {"loss": 0.5}}, "best": None, "ended": False}
    (tmp_path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    standing = Book(tmp_path).standing
    assert (standing.round, standing.judged, standing.judged_by) == (1, {0: {"loss": 0.5}}, {})
    assert standing.kinds is None
