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


def test_rows_that_the_sites_of_a_federation_have_need_not_be_here(folder: Path) -> None:
    (folder / "shared.yaml").write_text(RECIPE.replace("data: {train: reviews.csv}", "data: {test: reviews.csv}"))
    result = CliRunner().invoke(main, ["validate", "shared.yaml"])
    assert (result.exit_code, "data.train: it is missing" in result.stderr) == (2, True)

    result = CliRunner().invoke(main, ["validate", "shared.yaml", "federation.min_sites=3"])
    assert result.exit_code == 0, result.output
    words = "each site's own rows, 20% of them held back to judge by, and test rows here (for federate --superlink)"
    assert f"  data      {words}\n" in result.output

    recipe = Recipe.load("shared.yaml", ["federation.min_sites=3"])
    assert recipe.provenance["data.train"] == "derived: the sites have the rows"
    assert recipe.override("federation.min_sites=4").resolved().data.train == recipe.data.train
    (folder / "again.yaml").write_text(recipe.resolved().to_yaml())
    assert Recipe.load("again.yaml").data.train == recipe.data.train


def test_a_recipe_of_a_federation_still_names_what_is_wrong_with_its_data(folder: Path) -> None:
    (folder / "shared.yaml").write_text(RECIPE.replace("train: reviews.csv", "trian: reviews.csv") + "federation: {}\n")
    result = CliRunner().invoke(main, ["validate", "shared.yaml"])
    assert (result.exit_code, "did you mean data.train?" in result.stderr) == (2, True)


SEARCH = """\
search:
  space:
    training.learning_rate: {loguniform: [1.0e-5, 1.0e-2]}
    training.adaptation: {choice: [full, lora]}
    training.lora.r: {choice: [4, 8], when: {training.adaptation: lora}}
"""


ONE = "training.num_workers=1"
GRID = (
    "search.space={training.adaptation: {choice: [full, lora]}, training.seed: {randint: [1, 3]}, "
    "training.lora.r: {choice: [4, 8], when: {training.adaptation: lora}}}"
)
THREE = "3 hyperparameters"
OWN = "f1_macro on the validation split; of the winner its best checkpoint is kept"


@pytest.mark.parametrize(
    ("overrides", "said", "judged"),
    [
        (
            ["search.time_budget_s=600", "search.seeds=3"],
            f"{THREE} by TPE, ASHA stops what lags behind: at most 20 trials, then the best with 2 other seeds, at most 600 s",
            OWN,
        ),
        (
            [GRID, "search.algorithm=grid", "search.scheduler=none", "search.winner=refit", "search.metric=accuracy"],
            "3 hyperparameters by grid: all 9 combinations, without a limit of time",
            "accuracy on the validation split; of the winner its values are trained anew",
        ),
        (
            ["search.space={training.seed: {choice: [1, 2]}}", "search.cost_budget_s=9", "search.scheduler=none"],
            "1 hyperparameter by TPE: all 2 combinations and the recipe's own values, at most 9 core- or GPU-seconds",
            OWN,
        ),
        (
            ["search.space={training.l2_sp: {uniform: [0.1, 1]}}", "search.scheduler=pbt", "search.num_samples=8", ONE],
            "1 hyperparameter by population-based training: 8 trainings in 4 generations, without a limit of time",
            OWN,
        ),
        (
            [GRID, "search.num_samples=4", "search.time_budget_s=9", "search.algorithm=random", "search.scheduler=none"],
            "3 hyperparameters at random: at most 4 trials of 9 combinations and the recipe's own values, at most 9 s",
            OWN,
        ),
        (
            ["search.objectives=[f1_macro, latency_ms]", "search.scheduler=none", ONE],
            f"{THREE} by TPE: at most 20 trials, without a limit of time",
            "f1_macro and latency_ms on the validation split; of the winner its best checkpoint is kept",
        ),
    ],
)
def test_what_would_be_searched_is_told(folder: Path, overrides: list[str], said: str, judged: str) -> None:
    (folder / "reviews.yaml").write_text(RECIPE + SEARCH)
    result = CliRunner().invoke(main, ["validate", "reviews.yaml", *overrides])
    assert result.exit_code == 0, result.output
    keys = Recipe.load("reviews.yaml", overrides).search.space
    lines = result.output.splitlines()[-3:]
    assert [lines[0], lines[2]] == [f"  search    {said}", f"  judged by {judged}"]
    assert set(lines[1].removeprefix("  over      ").split(", ")) == set(keys)


@pytest.mark.parametrize(
    ("space", "line", "words"),
    [
        ("{training.lerning_rate: {uniform: [0.1, 1]}}", "training.lerning_rate", "did you mean training.learning_rate?"),
        ("{training.weight_decay: {uniform: [0.1, 0.1]}}", "uniform", "the range is empty: it begins and ends at 0.1"),
        ("{training.weight_decay: {uniform: [0.3, 0.1]}}", "uniform", "the range ends at 0.1, before it begins at 0.3"),
        ("{training.seed: {randint: [1, 1000]}, data.max_length: {randint: [1, 1000]}}", "space", "1,000,000 combinations"),
    ],
)
def test_a_mistaken_space_is_refused_with_its_line(folder: Path, space: str, line: str, words: str) -> None:
    (folder / "reviews.yaml").write_text(RECIPE + f"search:\n  algorithm: grid\n  space: {space}\n")
    result = CliRunner().invoke(main, ["validate", "reviews.yaml"])
    assert result.exit_code == 2
    assert "1 mistake in the recipe" in result.stderr
    assert "reviews.yaml:7: search.space" in result.stderr
    assert line in result.stderr
    assert words in result.stderr
