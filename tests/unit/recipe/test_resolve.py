"""Derived values are filled in with their reasons, and a run's record reads back to the same recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import RecipeError, UserError
from tunesmith.recipe import Recipe

Write = Callable[..., Path]


def test_derived_values_say_why(write: Write, tmp_path: Path) -> None:
    recipe = Recipe.load(write(), ["data.split.group=patient", "training.per_device_train_batch_size=12"]).resolved()
    assert recipe.training.per_device_eval_batch_size == 24
    assert recipe.data.split.by == "group"
    assert recipe.training.batching == "tokens"
    assert recipe.training.metric_for_best_model == "f1_macro"
    assert recipe.training.greater_is_better is True
    assert recipe.training.output_dir == str(tmp_path / "runs")
    assert recipe.data.cache_dir == str(tmp_path / "runs/.cache")
    assert recipe.data.train == str(tmp_path / "train.csv")
    assert recipe.provenance["training.per_device_eval_batch_size"] == "derived: twice training.per_device_train_batch_size"
    assert recipe.provenance["data.split.by"] == "derived: data.split.group is set"
    assert recipe.provenance["training.max_steps"].startswith("default: depends on the data")


def test_what_is_refused_of_leaks_is_said_as_it_is(write: Write) -> None:
    said = Recipe.load(write()).resolved().provenance["data.leakage"]
    assert "exact ones refused and near ones reported in given" in said


def test_what_was_written_is_never_changed(write: Write) -> None:
    recipe = Recipe.load(
        write(
            "training: {per_device_eval_batch_size: 3, batching: fixed, metric_for_best_model: loss, greater_is_better: true}\n"
        )
    ).resolved()
    training = recipe.training
    assert (training.per_device_eval_batch_size, training.batching, training.metric_for_best_model) == (3, "fixed", "loss")
    assert training.greater_is_better is True


def test_less_loss_is_better(write: Write) -> None:
    assert Recipe.load(write(), ["training.metric_for_best_model=loss"]).resolved().training.greater_is_better is False


def test_without_evaluations_there_is_no_best_checkpoint(write: Write) -> None:
    assert Recipe.load(write(), ["training.eval_strategy=no"]).resolved().training.load_best_model_at_end is False


def test_a_given_split_takes_no_share(write: Write) -> None:
    recipe = Recipe.load(write("  validation: train.csv\n")).resolved()
    assert (recipe.data.split.validation, recipe.data.split.test) == (0, 0.1)


def test_a_task_of_ones_own_decides_for_itself(write: Write) -> None:
    training = Recipe.load(write(), ["task=collections:Counter"]).resolved().training
    assert (training.batching, training.metric_for_best_model, training.greater_is_better) == ("auto", None, None)


def test_resolving_twice_changes_nothing(write: Write) -> None:
    once = Recipe.load(write()).resolved()
    assert once.resolved() == once
    assert once.resolved().provenance == once.provenance


@pytest.mark.parametrize(
    "overrides", [[], ["training.eval_strategy=no"], ["data.validation=train.csv"], ["training.report_to=mlflow"]]
)
def test_the_record_reads_back_from_anywhere(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    recipe = Recipe.load(write("  labels: ['no', '010', '3e-5']\n"), overrides).resolved()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    Path("copy.yaml").write_text(recipe.to_yaml())
    again = Recipe.load("copy.yaml").resolved()
    assert again.model_dump() == recipe.model_dump()
    assert again.fingerprint() == recipe.fingerprint()
    assert yaml.safe_load(recipe.to_yaml()) == recipe.model_dump(mode="json")


def test_an_unresolved_recipe_keeps_only_what_was_written(write: Write, tmp_path: Path) -> None:
    kept = yaml.safe_load(Recipe.load(write()).to_yaml())
    assert kept == {
        "name": Recipe.load("recipe.yaml").name,
        "task": "text-classification",
        "model": {"model_name_or_path": "google-bert/bert-base-uncased"},
        "data": {"train": str(tmp_path / "train.csv")},
    }


class TestFingerprint:
    """The same results, the same fingerprint; another result, another one."""

    def test_spelling_out_a_default_does_not_count(self, write: Write) -> None:
        plain = Recipe.load(write()).fingerprint()
        spelt = Recipe.load(write("training: {seed: 42, per_device_eval_batch_size: 16}\n")).fingerprint()
        assert plain == spelt
        assert len(plain) == 16

    @pytest.mark.parametrize(
        "override", ["name=x", "training.output_dir=other", "data.cache_dir=other", "training.report_to=mlflow"]
    )
    def test_where_results_are_kept_does_not_count(self, write: Write, override: str) -> None:
        path = write()
        assert Recipe.load(path, [override]).fingerprint() == Recipe.load(path).fingerprint()

    def test_sections_count_alone(self, write: Write) -> None:
        path = write()
        one, other = Recipe.load(path), Recipe.load(path, ["training.seed=1"])
        assert one.fingerprint("data", "model") == other.fingerprint("data", "model")
        assert one.fingerprint("training") != other.fingerprint("training")
        assert one.fingerprint("training.learning_rate") == other.fingerprint("training.learning_rate")
        assert one.fingerprint() != other.fingerprint()

    def test_an_unknown_section_is_refused(self, write: Write) -> None:
        with pytest.raises(UserError, match=r"did you mean training\?"):
            Recipe.load(write()).fingerprint("trainig")

    def test_it_does_not_change_between_versions(self) -> None:
        values = {"task": "text-classification", "model": {"model_name_or_path": "a/b"}, "data": {"train": "hf://a/b"}}
        assert Recipe.from_dict(values).fingerprint("model.model_name_or_path", "data.train") == "26631927179588b9"


@settings(max_examples=40, deadline=None)
@given(
    learning_rate=st.floats(min_value=1e-12, max_value=10),
    labels=st.none() | st.lists(st.text(min_size=1, max_size=6), unique=True, min_size=2, max_size=4),
    columns=st.dictionaries(st.sampled_from(["text", "label"]), st.text(min_size=1, max_size=6)),
    optim_args=st.dictionaries(st.text(max_size=5), st.booleans() | st.integers() | st.floats(allow_nan=False), max_size=3),
)
def test_any_recipe_reads_back(
    learning_rate: float,
    labels: list[str] | None,
    columns: dict[str, str],
    optim_args: dict[str, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recipe = Recipe.from_dict(
        {
            "task": "text-classification",
            "model": {"model_name_or_path": "a/b"},
            "data": {"train": "hf://a/b", "labels": labels, "columns": columns},
            "training": {"learning_rate": learning_rate, "optim_args": optim_args},
        }
    ).resolved()
    path = tmp_path_factory.mktemp("kept") / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.load(path).model_dump() == recipe.model_dump()


def test_a_broken_record_says_so(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml:6"):
        Recipe.load(write("no_such: 1\n"))


def test_prepared_data_lies_under_a_uri_with_a_query() -> None:
    """Object stores of one's own are reached so: ``?endpoint_override=…&scheme=http``."""
    place = "s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http"
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": "owner/name"},
        "data": {"train": "s3://bucket/x.csv"},
    }
    recipe = Recipe.from_dict({**values, "training": {"output_dir": place}}, base_dir=".").resolved()
    assert recipe.data.cache_dir == "s3://bucket/runs/.cache?endpoint_override=127.0.0.1:9000&scheme=http"
