"""A recipe is read, overridden and refused with every mistake at once."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.errors import EXIT_USER, RecipeError, UserError
from tunesmith.recipe import Recipe

Write = Callable[..., Path]
Mistakes = Callable[..., list[str]]


def test_a_sound_recipe_has_its_values_and_where_they_come_from(write: Write) -> None:
    recipe = Recipe.load(write("training:\n  learning_rate: 3e-5\n"), ["training.seed=7", "data.columns.text=review"])
    assert recipe.training.learning_rate == 3e-5
    assert recipe.training.seed == 7
    assert recipe.data.columns == {"text": "review"}
    assert recipe.path == "recipe.yaml"
    assert recipe.base_dir == os.getcwd()
    assert recipe.provenance["task"] == "recipe.yaml:1"
    assert recipe.provenance["training.learning_rate"] == "recipe.yaml:7"
    assert recipe.provenance["training.seed"] == "command line"
    assert recipe.provenance["data.columns"] == "command line"
    assert recipe.provenance["training.weight_decay"] == "default"


def test_all_mistakes_are_listed_in_the_order_of_their_lines(mistakes: Mistakes) -> None:
    found = mistakes(
        "training:\n  lerning_rate: 1\n  num_train_epochs: three\n  eval_strategy: epochs\nnmae: x\n  \n",
        "training.sed=1",
        "trainin.seed=1",
    )
    three, strategy = "found 'three', which is not a number above 0", "one of epoch, steps, no"
    arrow = "\n    → "
    assert found == [
        f"recipe.yaml:7: training.lerning_rate: there is no such key{arrow}did you mean training.learning_rate?",
        f"recipe.yaml:8: training.num_train_epochs: {three}{arrow}write a number above 0; the default is 3.0",
        f"recipe.yaml:9: training.eval_strategy: found 'epochs', which is not {strategy}{arrow}did you mean epoch?",
        f"recipe.yaml:10: nmae: there is no such key{arrow}did you mean name?",
        f"command line: training.sed: there is no such key{arrow}did you mean training.seed?",
        f"command line: trainin: there is no such key{arrow}did you mean training?",
    ]


def test_the_error_ends_the_command_as_a_users_mistake(write: Write) -> None:
    with pytest.raises(RecipeError, match="2 mistakes in the recipe") as caught:
        Recipe.load(write("nmae: x\ntraing: {}\n"))
    assert caught.value.exit_code == EXIT_USER
    assert pickle.loads(pickle.dumps(caught.value)).mistakes == caught.value.mistakes


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("learning_rate: 1", "did you mean training.learning_rate? it stands under training:"),
        ("data.learning_rate: 1", "did you mean training.learning_rate? it stands under training:"),
        ("training.max_length: 9", "did you mean data.max_length? it stands under data:"),
        ("training.model_name_or_path: x", "did you mean model.model_name_or_path? it stands under model:"),
        ("data.name: x", "did you mean name? it stands at the top"),
        ("training.evaluation_strategy: steps", "write training.eval_strategy"),
        ("training.deepspeed: ds.json", "write training.fsdp: true"),
        ("no_cuda: true", "write training.use_gpu: false"),
        ("training.lr: 1", "did you mean training.learning_rate?"),
        ("training.epochs: 1", "did you mean training.num_train_epochs?"),
        ("data.train_file: x", "did you mean data.train?"),
        ("data.test_size: 0.1", "did you mean data.split.test? it stands under data.split:"),
        ("traning: {}", "did you mean training?"),
        ("training.Learning-Rate: 1", "did you mean training.learning_rate?"),
        ("training.zzzzzz: 1", "remove it; training has output_dir"),
        ("training.dataloader_num_worker: 1", "batches need no loader processes"),
    ],
)
def test_an_unknown_key_gets_the_nearest_valid_one(write: Write, key: str, fix: str) -> None:
    name, _, value = key.partition(": ")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(), [f"{name}={value}"])
    (mistake,) = caught.value.mistakes
    assert fix in mistake.fix


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.seed=true", "found true, which is not a whole number"),
        ("training.seed=1.5", "found 1.5, which is not a whole number"),
        ("training.seed=", "found null"),
        ("training.learning_rate=.inf", "not a number above 0"),
        ("training.learning_rate=0", "found 0, which is not a number above 0"),
        ("training.weight_decay=0,1", "write 0.1, with a point"),
        ("training.warmup_ratio=10%", "write 0.1"),
        ("training.warmup_steps=0.1", "training.warmup_ratio: 0.1"),
        ("training.bf16=maybe", "true or false or auto"),
        ("training.fsdp=full_shard auto_wrap", "write true"),
        ("training.report_to=[mlfow]", "did you mean mlflow?"),
        ("training=5", "found 5 where a section of keys belongs"),
        ("data.split=[1]", "write the keys under it, such as data.split.by"),
        ("data.train=[]", "not text or a list of texts"),
        ("data.train=[1, {a: 2}]", "data.train: data sets with and without names are mixed"),
        ("data.labels=[a, null]", "data.labels[1]: found null"),
        ("data.columns=text", "a mapping of names to texts"),
        ("training.resources_per_worker={CPU: many}", "training.resources_per_worker.CPU: found 'many'"),
        ("name=a/b c", "such as a-b-c"),
        ("task={a: 1}", "found {'a': 1}, which is not text"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_wanted(write: Write, override: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(), [override])
    (mistake,) = caught.value.mistakes
    assert words in str(mistake)
    assert mistake.file == "command line"


def test_missing_keys_are_asked_for_with_what_they_mean(mistakes: Mistakes) -> None:
    task, model, train = mistakes(head="training: {seed: 1}\ndata:\n  max_length: 5\n")
    assert task.startswith("recipe.yaml:1: task: it is missing\n    → add task: What kind")
    assert "add model.model_name_or_path: A Hub id" in model
    assert "a local folder" in model
    assert train.startswith("recipe.yaml:2: data.train: it is missing")
    assert "add data.train: A file, folder" in train


def test_what_follows_from_a_mistake_is_not_a_mistake_of_its_own(mistakes: Mistakes) -> None:
    (only,) = mistakes("training: {eval_strategy: steps, eval_step: 500}\n")
    assert "did you mean training.eval_steps?" in only


def test_contradictions_are_found_beside_wrong_types(mistakes: Mistakes) -> None:
    found = mistakes("training: {seed: x, fp16: true, bf16: true}\n")
    assert ["seed" in found[0], "fp16 and bf16 are both on" in found[1], len(found)] == [True, True, 2]


def test_bare_numbers_and_truth_values_are_text_where_text_is_wanted(write: Write) -> None:
    recipe = Recipe.load(
        write("  labels: [no, yes, 0, 010, true, 1.50]\n  columns: {label: 5}\nname: 2024\n"), ["model.revision=1e10"]
    )
    assert recipe.data.labels == ["no", "yes", "0", "010", "true", "1.50"]
    assert recipe.data.columns == {"label": "5"}
    assert recipe.name == "2024"
    assert recipe.model.revision == "1e10"


def test_yes_and_no_mean_what_the_field_takes(write: Write) -> None:
    recipe = Recipe.load(write("training: {eval_strategy: no, gradient_checkpointing: yes, use_gpu: off}\n"))
    assert recipe.training.eval_strategy == "no"
    assert recipe.training.gradient_checkpointing is True
    assert recipe.training.use_gpu is False


def test_one_word_is_a_list_of_one(write: Write) -> None:
    recipe = Recipe.load(write("training: {report_to: mlflow}\nevaluation: {slices: region}\n"))
    assert recipe.training.report_to == ["mlflow"]
    assert recipe.evaluation.slices == ["region"]
    assert Recipe.load(write("training: {report_to: none}\n")).training.report_to == []


def test_a_section_whose_keys_are_all_commented_out_has_its_defaults(write: Write) -> None:
    assert Recipe.load(write("  columns:\n  # text: review\ntraining:\n  # seed: 1\nevaluation:\n")).training.seed == 42


def test_an_override_of_a_section_keeps_its_other_keys(write: Write) -> None:
    path = write("training: {seed: 3, optim_args: {momentum: 0.9}}\n")
    recipe = Recipe.load(
        path, ["training={learning_rate: 3e-5, optim_args: {nesterov: true}}", "training.seed=5", "training.seed=6"]
    )
    assert (recipe.training.seed, recipe.training.learning_rate) == (6, 3e-5)
    assert recipe.training.optim_args == {"nesterov": True}
    assert recipe.provenance["training.learning_rate"] == "command line"


@pytest.mark.parametrize("override", ["training.seed", "=5", "", "training..seed=1", ".seed=1"])
def test_an_override_without_key_or_value_says_how_one_is_written(write: Write, override: str) -> None:
    with pytest.raises(RecipeError, match="an override is written as key=value"):
        Recipe.load(write(), [override])


def test_an_override_that_is_not_yaml_is_a_mistake_of_the_command_line(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"command line: data\.labels: this is not YAML"):
        Recipe.load(write(), ["data.labels=[a"])


def test_paths_of_the_command_line_start_at_the_working_directory(write: Write, tmp_path: Path) -> None:
    path = write(
        head="task: text-classification\nmodel: {model_name_or_path: a/b}\ndata: {train: ../train.csv}\n", name="sub/r.yaml"
    )
    assert Recipe.load(path).resolved().data.train == str(tmp_path / "train.csv")
    assert Recipe.load(path, ["data.train=train.csv"]).data.train == str(tmp_path / "train.csv")


def test_the_name_comes_from_the_file_or_its_folder(write: Write) -> None:
    assert Recipe.load(write(name="My model (1).yaml")).name == "My-model-1"
    path = write(
        head="task: text-classification\nmodel: {model_name_or_path: a/b}\ndata: {train: ../train.csv}\n",
        name="digits/recipe.yaml",
    )
    recipe = Recipe.load(path)
    assert recipe.name == "digits"
    assert recipe.provenance["name"] == "derived: the recipe's folder"


def test_a_missing_recipe_names_those_beside_it(write: Write) -> None:
    write(name="recipe.yaml")
    with pytest.raises(UserError, match=r"there is no recipe recpe\.yaml: .* has recipe\.yaml"):
        Recipe.load("recpe.yaml")
    with pytest.raises(UserError, match="there is no folder"):
        Recipe.load("nowhere/recipe.yaml")


def test_a_folder_instead_of_a_recipe_names_the_one_in_it(write: Write) -> None:
    write(name="sub/recipe.yaml")
    with pytest.raises(UserError, match=r"sub is a folder, not a recipe: write sub/recipe\.yaml"):
        Recipe.load("sub")


def test_an_empty_or_unreadable_file_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml:1: recipe: the recipe is empty"):
        Recipe.load(write(head=""))
    (tmp_path / "latin.yaml").write_bytes("task: x\nname: é\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml:2: recipe: this is not UTF-8 text"):
        Recipe.load("latin.yaml")


def test_a_recipe_of_windows_is_read(write: Write, tmp_path: Path) -> None:
    text = write().read_text().replace("\n", "\r\n")
    (tmp_path / "windows.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert Recipe.load("windows.yaml").task == "text-classification"


def test_python_gets_the_same_checks(write: Write, tmp_path: Path) -> None:
    write()
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": "a/b"},
        "data": {"train": tmp_path / "train.csv", "labels": (0, True)},
    }
    recipe = Recipe.from_dict(values, ["training.seed=3"])
    assert recipe.data.train == str(tmp_path / "train.csv")
    assert recipe.data.labels == ["0", "true"]
    assert recipe.training.seed == 3
    with pytest.raises(RecipeError, match=r"Python: data\.lables: there is no such key"):
        Recipe.from_dict({**values, "data": {"train": "train.csv", "lables": []}})


def test_an_override_in_python_derives_anew(write: Write) -> None:
    resolved = Recipe.load(write()).resolved()
    assert resolved.training.per_device_eval_batch_size == 16
    changed = resolved.override("training.per_device_train_batch_size=4").resolved()
    assert changed.training.per_device_eval_batch_size == 8
    assert changed.name == resolved.name
    assert changed.provenance["task"] == "recipe.yaml:1"
    assert changed.provenance["training.per_device_train_batch_size"] == "override"


def test_a_recipe_is_frozen_and_travels(write: Write) -> None:
    recipe = Recipe.load(write()).resolved()
    with pytest.raises(ValueError, match="frozen"):
        recipe.task = "x"  # type: ignore[misc]
    travelled = pickle.loads(pickle.dumps(recipe))
    assert travelled == recipe
    assert travelled.provenance == recipe.provenance
    assert travelled.base_dir == recipe.base_dir


def test_a_recipe_at_a_uri_keeps_the_query_in_its_relative_paths() -> None:
    """The query says how the store is reached (its endpoint, its region)."""
    import fsspec

    file = "memory://team/digits/recipe.yaml"
    fsspec.filesystem("memory").pipe(
        file, b"task: image-classification\nmodel: {model_name_or_path: a/b}\ndata: {train: rows}\n"
    )
    recipe = Recipe.load(f"{file}?region=eu", check_paths=False)
    assert recipe.base_dir == "memory://team/digits?region=eu"
    assert (recipe.name, recipe.resolved().data.train) == ("digits", "memory://team/digits/rows?region=eu")
