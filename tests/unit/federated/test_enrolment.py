"""Classes that nobody has declared: all sites share them before round 1, or are refused by name with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from support.data import texts
from support.federation import Fault, InMemory, LocalGrid, federation, federation_recipe
from tunesmith.errors import DataError, UserError
from tunesmith.recipe import Recipe
from tunesmith_federated import roster
from tunesmith_federated.codec import encode
from tunesmith_federated.flower import Message
from tunesmith_federated.messages import replying
from tunesmith_federated.protocol import Reply
from tunesmith_federated.site import Site

pytestmark = pytest.mark.unit

ROWS = texts(72, seed=3)
LOW, HIGH = ([row for row in ROWS if row["label"] == label] for label in ("low", "high"))


@pytest.fixture
def recipe(bert: Path, tmp_path: Path) -> Recipe:
    training = {"optim": "sgd", "learning_rate": 0.05, "per_device_train_batch_size": 8, "num_train_epochs": 1}
    return federation_recipe(bert, tmp_path / "recipe", training, min_sites=2, min_examples=5)


def sites(folder: Path, **rows: list[dict[str, Any]]) -> list[Site]:
    """Sites by name, each of which knows nothing but its own rows."""
    return [Site(name, InMemory(own, 0, own), folder / name) for name, own in rows.items()]


def notes(made: Any) -> str:
    return "\n".join(str(one["message"]) for one in made.told if one["kind"] == "note")


def test_a_site_with_a_class_that_is_too_rare_to_be_told_is_refused_before_round_1(recipe: Recipe, tmp_path: Path) -> None:
    rare = [{**row, "label": "rare"} for row in ROWS[:3]]
    three = sites(tmp_path, a=ROWS[:24], b=ROWS[24:48], c=[*ROWS[48:], *rare])
    made = federation(recipe, LocalGrid(three), tmp_path / "server", [])
    book = made.run()
    assert book.standing.labels == ["high", "low"]
    assert {row["site"] for row in book.rows()} == {"a", "b"}
    assert "The sites share the classes high, low. A class of which a site has fewer than 5 rows is not told" in notes(made)
    assert "c does not take part: training data has the label 'rare' (3 rows), which data.labels does not name" in notes(made)
    with pytest.raises(UserError, match=r"2 of at least 3 sites take part(.|\n)*  c: training data has the label 'rare'"):
        federation(recipe.override("federation.min_sites=3"), LocalGrid(three), tmp_path / "other", []).run()


class Flapping(LocalGrid):
    """The nodes that are there at each look; in the end all."""

    def __init__(self, sites: list[Site], faults: dict[str, Fault], looks: list[set[int]]) -> None:
        super().__init__(sites, faults)
        self._looks = looks

    def get_node_ids(self) -> Iterable[int]:
        return sorted(self._looks.pop(0)) if self._looks else super().get_node_ids()


def test_a_site_that_is_refused_again_for_another_reason_is_told_of_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "WAIT", 0.01)
    left = ["its owner is asleep"]

    def refuses_once(message: Message, answer: Callable[[Message], Message]) -> Message:
        if not left:
            return answer(message)
        return replying(Reply("c", "describe", "job", 0, refused=left.pop()), encode({}), encode({}), message)

    rare = [{**row, "label": "rare"} for row in ROWS[:3]]
    three = sites(tmp_path, a=ROWS[:24], b=ROWS[24:48], c=[*ROWS[48:], *rare])
    made = federation(recipe, Flapping(three, {"c": refuses_once}, [{2, 3}, {2}]), tmp_path / "server", [], wait_s=60)
    made.run()
    assert "c does not take part: its owner is asleep" in notes(made)
    assert "c does not take part: training data has the label 'rare'" in notes(made)


def test_a_site_with_one_class_takes_part_where_the_others_have_more(recipe: Recipe, tmp_path: Path) -> None:
    grid = LocalGrid(sites(tmp_path, a=LOW[:12], b=[*LOW[12:], *HIGH]))
    made = federation(recipe, grid, tmp_path / "server", [])
    book = made.run()
    assert {row["site"]: row["status"] for row in book.rows()} == {"a": "replied", "b": "replied"}
    assert grid.asked[:4] == [("a", "query.describe"), ("b", "query.describe")] * 2
    assert made.state["label_counts"] == [len(HIGH), len(LOW)]


LISTS = [{**row, "label": [row["label"]]} for row in ROWS]
PAIRS = [{**row, "text_pair": "and more"} for row in ROWS]


@pytest.mark.parametrize(("other", "what"), [(LISTS, "lists of labels"), (PAIRS, "pairs of texts")])
@pytest.mark.parametrize("declared", ["data.labels=[high, low]", "data.labels=null"])
def test_sites_whose_rows_are_of_two_kinds_are_named_before_round_1(
    recipe: Recipe, tmp_path: Path, other: list[dict[str, Any]], what: str, declared: str
) -> None:
    grid = LocalGrid(sites(tmp_path, a=ROWS[:24], b=other[24:48], c=ROWS[48:]))
    with pytest.raises(DataError, match=f"b: there are {what}; a, c: there are none"):
        federation(recipe.override(declared), grid, tmp_path / "server", []).run()
    assert {kind for _, kind in grid.asked} == {"query.describe"}
    federation(recipe, LocalGrid(sites(tmp_path, a=other[:24], b=other[24:48])), tmp_path / "alike", []).run()


def test_a_site_that_comes_later_with_rows_of_another_kind_does_not_take_part(recipe: Recipe, tmp_path: Path) -> None:
    three = sites(tmp_path, a=ROWS[:24], b=ROWS[24:48], c=LISTS[48:])
    grid = LocalGrid(three)
    made = federation(recipe, grid, tmp_path / "server", [])
    grid.online = {1, 2}

    def joins(message: Message, answer: Callable[[Message], Message]) -> Message:
        if message.metadata.message_type == "query.describe" and len(grid.asked) > 3:
            grid.online = {1, 2, 3}
        return answer(message)

    grid.faults["a"] = grid.faults["b"] = joins
    book = made.run()
    assert {row["site"] for row in book.rows()} == {"a", "b"}
    assert list(made._roster.refused.values()) == ["its rows are of another kind than the other sites' (lists of labels)"]


@pytest.mark.parametrize("declared", ["data.labels=[high, low]", "data.labels=null"])
def test_a_server_that_is_started_again_goes_on_though_a_site_of_another_kind_has_joined(
    recipe: Recipe, tmp_path: Path, declared: str
) -> None:
    recipe = recipe.override(declared, "training.num_train_epochs=2")
    three = sites(tmp_path, a=ROWS[:24], b=ROWS[24:48], c=LISTS[48:])

    def dies(message: Message, answer: Callable[[Message], Message]) -> Message:
        if message.metadata.message_type == "train" and message.metadata.group_id == "2":
            raise KeyboardInterrupt
        return answer(message)

    grid = LocalGrid(three, {"b": dies})
    grid.online = {1, 2}
    with pytest.raises(KeyboardInterrupt):
        federation(recipe, grid, tmp_path / "server", []).run()
    made = federation(recipe, LocalGrid(three), tmp_path / "server", [])
    book = made.run()
    assert (book.standing.round, {row["site"] for row in book.rows()}) == (2, {"a", "b"})
    assert book.standing.kinds == {"multi_label": False, "pairs": False}
    assert "does not take part: its rows are of another kind than the other sites' (lists of labels)" in notes(made)


def test_what_ends_the_settling_in_a_way_that_nobody_expects_is_in_the_log(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = federation(recipe, LocalGrid(sites(tmp_path, a=ROWS[:36], b=ROWS[36:])), tmp_path / "server", [])

    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("of nothing")

    monkeypatch.setattr(made.plan.task, "freeze", fails, raising=False)
    with pytest.raises(DataError, match="what the sites tell makes no model: ZeroDivisionError: of nothing"):
        made.run()
    assert "Traceback" in caplog.text


def test_declared_classes_are_asked_of_once(recipe: Recipe, tmp_path: Path) -> None:
    grid = LocalGrid(sites(tmp_path, a=LOW[:12], b=ROWS))
    federation(recipe.override("data.labels=[low, high]"), grid, tmp_path / "server", []).run()
    assert [kind for _, kind in grid.asked].count("query.describe") == 2


def test_classes_that_make_no_model_are_told_with_the_way_out(recipe: Recipe, tmp_path: Path) -> None:
    grid = LocalGrid(sites(tmp_path, a=LOW[:12], b=[*LOW[12:], *HIGH[:3]]))
    with pytest.raises(DataError, match=r"only the class 'low'(.|\n)*fewer than 5 rows(.|\n)*data\.labels"):
        federation(recipe, grid, tmp_path / "server", []).run()
