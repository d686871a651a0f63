"""``tunesmith init`` writes a recipe that needs only its data."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunesmith.cli import main
from tunesmith.recipe import Recipe
from tunesmith.recipe.task_names import KNOWN


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a data file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("text,label\n")
    return tmp_path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


@pytest.mark.parametrize("task", KNOWN)
def test_what_it_writes_is_sound(task: str) -> None:
    result = init(task, "--data", "mine.csv")
    assert result.exit_code == 0
    assert result.output == "wrote recipe.yaml: edit data.train and the rest, then `tunesmith validate recipe.yaml`\n"
    assert CliRunner().invoke(main, ["validate", "recipe.yaml"]).exit_code == 0


def test_paths_are_those_that_the_recipe_sees(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    assert init("text-classification", "--out", "sub/my.yaml", "--data", "mine.csv", "--model", "model").exit_code == 0
    recipe = Recipe.load("sub/my.yaml")
    assert recipe.data.train == "../mine.csv"
    assert recipe.resolved().model.model_name_or_path == str(folder / "model")


def test_ids_and_uris_stay() -> None:
    init("text-classification", "--data", "s3://bucket/x.csv", "--model", "owner/name")
    recipe = Recipe.load("recipe.yaml")
    assert (recipe.data.train, recipe.model.model_name_or_path) == ("s3://bucket/x.csv", "owner/name")


def test_a_file_that_exists_is_kept_unless_forced(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("mine")
    result = init("text-classification")
    assert result.exit_code == 2
    assert "replace it with --force" in result.stderr
    assert (folder / "recipe.yaml").read_text() == "mine"
    assert init("text-classification", "--force").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["mine.csv", "recipe.yaml"]


@pytest.mark.parametrize("task", ["text-clasification", "cooking", "collections:Counter"])
def test_an_unknown_task_lists_those_there_are(task: str, folder: Path) -> None:
    result = init(task)
    assert result.exit_code == 2
    assert all(name in result.stderr for name in KNOWN)
    assert not (folder / "recipe.yaml").exists()


def test_an_editor_is_told_of_a_schema_beside_it(folder: Path) -> None:
    assert CliRunner().invoke(main, ["schema", "--out", "tunesmith.schema.json"]).exit_code == 0
    init("text-classification")
    assert (folder / "recipe.yaml").read_text().startswith("# yaml-language-server: $schema=tunesmith.schema.json\n")


def test_a_folder_that_cannot_be_made_is_a_users_mistake() -> None:
    result = init("text-classification", "--out", "mine.csv/recipe.yaml")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
