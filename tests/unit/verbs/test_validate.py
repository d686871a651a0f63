"""``tunesmith validate`` lists all mistakes, or says what will happen."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tunesmith.cli import main
from tunesmith.recipe import Recipe
from tunesmith.recipe.keys import leaves

RECIPE = """\
task: text-classification
model: {model_name_or_path: google-bert/bert-base-uncased}
data: {train: reviews.csv}
training: {num_workers: 2, gradient_accumulation_steps: 3}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a recipe and its data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,label\n")
    (tmp_path / "reviews.yaml").write_text(RECIPE)
    return tmp_path


def test_a_sound_recipe_is_told_in_a_few_lines(folder: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "reviews.yaml", "training.max_steps=1500"])
    assert result.exit_code == 0
    assert result.output == (
        "✓ reviews.yaml is sound\n"
        "  name      reviews\n"
        "  task      text-classification\n"
        "  model     google-bert/bert-base-uncased\n"
        f"  data      {folder}/reviews.csv, 10% for validation, 10% for test\n"
        "  training  1,500 updates, learning rate 5e-05 (linear), 2 workers, a GPU each where there are any\n"
        "  batches   48 examples an update (8 a worker × 3 accumulated), batches by token budget\n"
        "  best by   f1_macro, judged every epoch\n"
        f"  runs in   {folder}/runs\n"
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.train=[reviews.csv, reviews.csv]", "data.validation=reviews.csv"], "reviews.csv and 1 more, validation given"),
        (["data.split.test=0"], "10% for validation, no test split"),
        (
            ["training.num_train_epochs=0.5", "training.use_gpu=false"],
            "0.5 epochs, learning rate 5e-05 (linear), 2 workers, on CPUs",
        ),
        (["training={eval_strategy: no}"], "best by   nothing: the last checkpoint is kept"),
        (
            ["training={eval_strategy: steps, eval_steps: 50, early_stopping_patience: 2}"],
            "every 50 updates, stops after 2 without",
        ),
        (["training.load_best_model_at_end=false"], "best by   nothing: the last is kept; judged every epoch"),
        (["model.revision=abc"], "bert-base-uncased at abc"),
    ],
)
def test_what_will_happen_follows_the_recipe(overrides: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["validate", "reviews.yaml", *overrides])
    assert result.exit_code == 0, result.output
    assert words in result.output


def test_mistakes_are_all_listed_with_exit_code_2() -> None:
    result = CliRunner().invoke(main, ["validate", "reviews.yaml", "training.sed=1", "training.lr=2", "data.train=gone.csv"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "3 mistakes in the recipe" in result.stderr
    assert "did you mean training.seed?" in result.stderr


def test_resolved_prints_every_value_with_where_it_comes_from(folder: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "reviews.yaml", "--resolved", "training.seed=7"])
    lines = {line.split("#")[0].strip(): line.partition("  # ")[2] for line in result.output.splitlines()}
    assert lines["task: text-classification"] == "reviews.yaml:1"
    assert lines["num_workers: 2"] == "reviews.yaml:4"
    assert lines["seed: 7"] == "command line"
    assert lines["weight_decay: 0"] == "default"
    assert lines["per_device_eval_batch_size: 16"] == "derived: twice training.per_device_train_batch_size"
    assert sum("  # " in line for line in result.output.splitlines()) == len(list(leaves(Recipe)))


def test_resolved_is_itself_a_recipe(folder: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "reviews.yaml", "--resolved"])
    recipe = Recipe.load("reviews.yaml").resolved()
    assert yaml.safe_load(result.output) == recipe.model_dump()
    (folder / "again.yaml").write_text(result.output)
    assert Recipe.load("again.yaml").model_dump() == recipe.model_dump()
