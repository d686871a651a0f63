"""What the command line says of an evaluation is refused by its key, never with a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import UserError
from tunesmith.recipe import Recipe
from tunesmith.verbs.evaluation_settings import settings_alone, settings_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.fairness.groups=[sex"], r"evaluation\.fairness\.groups: '\[sex' is no value in YAML\n    → Close its"),
        (
            ["evaluation.behaviour=a", "evaluation.behaviour.x=1"],
            r"behaviour\.x: evaluation\.behaviour is 'a', which has no",
        ),
        (["evaluation.confidense=0.9"], r"evaluation\.confidense"),
        (["training.seed=1"], "only keys of evaluation can be set"),
        (["evaluation.retention.data=old.csv"], "what its run's recipe names"),
    ],
)
def test_an_override_that_cannot_be_is_refused_by_its_key(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings_alone([], overrides)


@pytest.mark.parametrize(
    ("old", "given", "words"),
    [
        (True, {"data": "other.csv"}, "own test split\n    → Leave out --data"),
        (True, {"split": "train"}, "Leave out --split"),
        (False, {}, "names no old data"),
        (False, {"overrides": ["evaluation.retention.data=old.csv"]}, "what its run's recipe names"),
        (True, {}, None),
    ],
)
def test_retention_is_asked_for_only_where_it_is_judged(
    old: bool, given: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,x\nb,y\n")
    place = str(tmp_path / "rows.csv")
    values = {"task": "text-classification", "model": {"model_name_or_path": "owner/base"}, "data": {"train": place}}
    recipe = Recipe.from_dict({**values, "evaluation": {"retention": {"data": place}} if old else {}})
    asked = {"suites": ["retention"], "overrides": [], **given}
    if words is None:
        assert settings_of(recipe, **asked) is not None
    else:
        with pytest.raises(UserError, match=words):
            settings_of(recipe, **asked)
