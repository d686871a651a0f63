"""``tunesmith init`` writes a recipe that needs only its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    rate = {"image-classification": "0.001"}.get(task, "5e-05")
    assert result.output == (
        f"wrote recipe.yaml: learning rate {rate}, 3 epochs; the reasons are in it\n"
        "edit the rest, then `tunesmith validate recipe.yaml`\n"
    )
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


@pytest.mark.parametrize(
    ("config", "rows", "rate", "epochs", "said"),
    [
        (
            {"model_type": "resnet"},
            539,
            1e-3,
            19,
            ["A convolutional network (by model_type resnet)", "431 of them are to train"],
        ),
        (
            {"model_type": "bert"},
            40,
            5e-5,
            50,
            ["A transformer (by model_type bert)", "40 rows, and 32 of them", "100 updates"],
        ),
        ({"model_type": "vit"}, 12_000, 5e-5, 3, ["A transformer", "More than 10,000 rows: 3 epochs are updates enough"]),
        ("no json", 1000, 5e-5, 10, ["What kind of network this is cannot be told from here", "1,000 rows, and 800"]),
    ],
)
def test_rate_and_epochs_go_by_model_and_rows_and_say_why(
    config: Any, rows: int, rate: float, epochs: int, said: list[str], folder: Path
) -> None:
    (folder / "net").mkdir()
    (folder / "net/config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / "mine.csv").write_text("text,label\n" + "a word,yes\n" * rows)
    assert init("text-classification", "--data", "mine.csv", "--model", "net").exit_code == 0
    training = Recipe.load("recipe.yaml").training
    assert (training.learning_rate, training.num_train_epochs) == (rate, epochs)
    comments = " ".join(line.strip().removeprefix("# ") for line in (folder / "recipe.yaml").read_text().splitlines())
    assert all(words in comments for words in said)


@pytest.mark.parametrize("data", ["s3://bucket/x.csv", "nowhere.csv", "mine.unknown"])
def test_data_that_cannot_be_counted_is_no_mistake_yet(data: str, folder: Path) -> None:
    (folder / "mine.unknown").write_text("?")
    assert init("text-classification", "--data", data).exit_code == 0
    assert "The rows were not counted: 3 epochs suit ten thousand of them" in (folder / "recipe.yaml").read_text()


def test_splits_that_are_given_take_no_share_of_the_training_rows(folder: Path) -> None:
    for name in ("train", "validation", "test"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / f"data/{name}.csv").write_text("text,label\n" + "a word,yes\n" * 160)
    init("text-classification", "--data", "data")
    assert "160 rows, and all are to train on, 16 an update: 50 epochs are 500" in (folder / "recipe.yaml").read_text()


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
