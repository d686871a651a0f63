from __future__ import annotations

import inspect
import pickle
import re

import pytest

from tunesmith import errors
from tunesmith.errors import Mistake, RecipeError, TunesmithError, nearest


def tree(kind: type[TunesmithError]) -> list[type[TunesmithError]]:
    return [kind, *(deeper for child in kind.__subclasses__() if child.__module__ == errors.__name__ for deeper in tree(child))]


def test_the_drawn_tree_is_the_tree_with_its_exit_codes() -> None:
    drawn = dict(re.findall(r"(\w+(?:Error|Failed))\s+(\d)\s", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in tree(TunesmithError)}


@pytest.mark.parametrize("kind", tree(TunesmithError))
def test_every_error_travels_between_processes(kind: type[TunesmithError]) -> None:
    error = RecipeError([Mistake("a.b", "what", "fix", "r.yaml", 3)]) if kind is RecipeError else kind("what\n    → fix")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert inspect.getdoc(kind)


def test_all_mistakes_of_a_recipe_stand_in_one_message() -> None:
    error = RecipeError([Mistake("training.seed", "no number", "write 1", "r.yaml", 4), Mistake("task", "missing")])
    assert str(error).splitlines() == [
        "2 mistakes in the recipe",
        "  r.yaml:4: training.seed: no number",
        "      → write 1",
        "  task: missing",
    ]
    assert len(error.mistakes) == 2


def test_the_nearest_name_is_near_or_none() -> None:
    assert nearest("acuracy", ["accuracy", "loss"]) == "accuracy"
    assert nearest("x", ["accuracy", "loss"]) is None
    assert nearest("x", []) is None
