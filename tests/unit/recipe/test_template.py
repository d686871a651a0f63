"""What ``tunesmith init`` writes is a recipe, with its comments too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunesmith.recipe import Recipe
from tunesmith.recipe.keys import leaves
from tunesmith.recipe.task_names import KNOWN
from tunesmith.recipe.template import EXAMPLES, LIVE, OFFERED, TASK_ONLY, template


@pytest.mark.parametrize("task", KNOWN)
def test_it_is_sound_apart_from_the_data(task: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(template(task))
    recipe = Recipe.load(tmp_path / "recipe.yaml", check_paths=False)
    assert recipe.task == task
    assert recipe.model.model_name_or_path == KNOWN[task].model


@pytest.mark.parametrize("task", KNOWN)
def test_it_is_sound_with_every_offered_key_uncommented(task: str, tmp_path: Path) -> None:
    text = re.sub(r"(?m)^( *)# ([a-z_0-9]+:.*)$", r"\1\2", template(task))
    (tmp_path / "recipe.yaml").write_text(text)
    written = {
        key for key, origin in Recipe.load(tmp_path / "recipe.yaml", check_paths=False).provenance.items() if "yaml:" in origin
    }
    only = TASK_ONLY["ragged" if KNOWN[task].ragged else "fixed"][0]
    assert written == {*LIVE, *OFFERED, only}


@pytest.mark.parametrize("name", ["my data/*.csv", "a: b", "no", "3e-5", "#x", "ünï.csv"])
def test_any_path_survives_the_template(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(template("text-classification", data=name), encoding="utf-8")
    assert Recipe.load(tmp_path / "recipe.yaml", check_paths=False).data.train == name


def test_the_tables_name_keys_that_exist() -> None:
    known = {key for key, _ in leaves(Recipe)}
    assert {*LIVE, *OFFERED, *EXAMPLES, *(key for key, _ in TASK_ONLY.values())} <= known


def test_lines_are_readable() -> None:
    for task in KNOWN:
        text = template(task)
        assert max(len(line) for line in text.splitlines()) <= 128
        assert "``" not in text
        assert "None" not in text
