"""The autopilot sees what the data is, and what it writes is a sound recipe with a reason for each choice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.models import tiny_bert
from tunesmith.errors import DataError, UserError
from tunesmith.recipe import Recipe
from tunesmith.recipe.gate import load_gate
from tunesmith.recipe.template import BATCH
from tunesmith.tuning.autopilot import write_gate, write_recipe
from tunesmith.tuning.looking import COUNTED, Seen, look, size_up
from tunesmith.tuning.pace import Pace, Size

TINY = Size(4, weights=30_000, parameters=60_000)


def reviews(folder: Path, header: str = "text,label", rare: int = 20) -> Path:
    lines = [f"film {n} was good and long,{'no' if n % 100 < rare else 'yes'}" for n in range(400)]
    (folder / "reviews.csv").write_text("\n".join([header, *lines]))
    return folder / "reviews.csv"


def test_it_sees_task_classes_and_lengths(tmp_path: Path) -> None:
    seen = look(str(reviews(tmp_path)), str(tmp_path))
    assert (seen.task, seen.rows, seen.columns) == ("text-classification", 400, {})
    assert seen.classes == {"yes": 320, "no": 80}
    assert seen.imbalance == 4
    assert seen.words == (6, 6)


def test_it_counts_the_splits_that_the_data_brings(tmp_path: Path) -> None:
    for name, rows in (("train", 40), ("validation", 9), ("test", 5)):
        lines = [f"film {n} was good,{'no' if n % 2 else 'yes'}" for n in range(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]))
    assert look(str(tmp_path), str(tmp_path)).splits == {"train": 40, "validation": 9, "test": 5}


def test_columns_with_other_names_are_told_by_what_they_hold(tmp_path: Path) -> None:
    seen = look(str(reviews(tmp_path, "what_was_said,mood")), str(tmp_path))
    assert seen.columns == {"text": "what_was_said", "label": "mood"}


def as_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "rows.jsonl"


@pytest.mark.parametrize("names", [("text", "labels"), ("said", "topics")])
def test_texts_with_several_classes_are_no_tagged_words(tmp_path: Path, names: tuple[str, str]) -> None:
    several = (["sport"], ["politics", "sport"], [], ["politics"])
    rows = [{names[0]: "a film about a game", names[1]: several[n % 4]} for n in range(80)]
    seen = look(str(as_rows(tmp_path, rows)), str(tmp_path))
    named = {} if names[0] == "text" else {"text": "said", "label": "topics"}
    assert (seen.task, seen.columns) == ("text-classification", named)
    assert seen.classes == {"sport": 20, "politics + sport": 20, "politics": 20}
    assert seen.words == (5, 5)


def test_one_class_in_a_list_is_no_tag_of_a_text_of_one_word(tmp_path: Path) -> None:
    rows = [{"text": "hello" if n % 2 else "bye", "labels": ["greeting" if n % 2 else "parting"]} for n in range(20)]
    assert look(str(as_rows(tmp_path, rows)), str(tmp_path)).task == "text-classification"


@pytest.mark.parametrize("names", [("tokens", "ner_tags"), ("text", "labels"), ("words", "tags")])
def test_words_with_a_tag_each_are_for_tagging_though_a_row_is_faulty(tmp_path: Path, names: tuple[str, str]) -> None:
    words = [["Ada", "lives", "in", "London"], ["She", "works"]]
    rows = [{names[0]: words[n % 2], names[1]: [0] * len(words[n % 2])} for n in range(40)]
    rows[7][names[1]] = [0]
    seen = look(str(as_rows(tmp_path, rows)), str(tmp_path))
    assert (seen.task, seen.words) == ("token-classification", (3, 4))
    joined = [{**row, names[1]: " ".join(map(str, row[names[1]]))} for row in rows]
    assert look(str(as_rows(tmp_path, joined)), str(tmp_path)).task == "token-classification"


def test_of_tagged_words_in_columns_with_other_names_the_columns_are_asked_for(tmp_path: Path) -> None:
    rows = [{"id": n, "w": ["Ada", "lives"], "t": [1, 0], "source": "wiki" if n % 2 else "news"} for n in range(40)]
    with pytest.raises(DataError, match="no column for the role 'tokens'"):
        look(str(as_rows(tmp_path, rows)), str(tmp_path))


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("a,b\n" + "\n".join(f"{n},{n * 7}" for n in range(50)))
    with pytest.raises(UserError, match="--task text-classification --column text=COLUMN"):
        look(str(tmp_path / "numbers.csv"), str(tmp_path))


def test_the_recipe_is_sound_and_every_choice_has_its_reason(tmp_path: Path) -> None:
    reviews(tmp_path)
    tiny_bert(tmp_path / "base")
    seen = look(str(tmp_path / "reviews.csv"), str(tmp_path))
    text = write_recipe(
        seen,
        name="reviews",
        data="reviews.csv",
        models=["./base"],
        configs=[{"model_type": "bert"}],
        sizes=[TINY],
        seconds=600,
        speed=1e10,
    )
    (tmp_path / "auto.yaml").write_text(text)
    recipe = Recipe.load(tmp_path / "auto.yaml")
    assert recipe.search.time_budget_s == 540
    assert recipe.training.metric_for_best_model == "loss", "80 validation rows"
    assert set(recipe.search.space) >= {
        "training.learning_rate",
        "training.adaptation",
        "training.lora.r",
        "training.class_weights",
    }
    schedule = recipe.search.space["training.unfreeze.every_epochs"]
    assert schedule["when"] == {"training.adaptation": "full"}
    assert schedule["choice"][0] is None
    # Three groups join beside the head: by ASHA's first look, or by the second.
    assert [every * 3 for every in schedule["choice"][1:]] == pytest.approx(
        [recipe.search.grace_period, 2 * recipe.search.grace_period], rel=0.05
    )
    lines = text.splitlines()
    for key in recipe.search.space:
        at = next(n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        assert lines[at - 1].strip().startswith("# "), key
    assert "4 times the rows of the rarest" in text


def test_several_models_are_searched_and_convolutional_ones_get_no_adapters() -> None:
    seen = Seen(
        "image-classification", "the data is a folder of pictures", {}, {"train": 20_000, "test": 900}, {"a": 9, "b": 9}, (0, 0)
    )
    text = write_recipe(
        seen,
        name="x",
        data="hf://a/b",
        models=["a/resnet-18", "a/resnet-50"],
        configs=[None, None],
        sizes=[Size(6), Size(None)],
        seconds=36000,
        speed=1e13,
    )
    written = yaml.safe_load(text)
    space = written["search"]["space"]
    assert space["model.model_name_or_path"] == {"choice": ["a/resnet-18", "a/resnet-50"]}
    assert space["training.adaptation"] == {"choice": ["full", "linear-probe"]}
    assert "training.lora.r" not in space
    assert "training.class_weights" not in space, "the classes are even"
    assert "training.unfreeze.every_epochs" not in space, "the second model's layers are not known"
    assert written["data"]["split"] == {"validation": 0.1, "test": 0.0}


def test_a_models_size_is_told_by_the_config_alone(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    found = size_up("text-classification", str(tmp_path / "base"))
    assert found.layers == 4  # the head, two layers, the embeddings
    assert 0 < found.weights < found.parameters
    assert size_up("text-classification", str(tmp_path / "none")) == Size(None)


def large(rows: int = 100_000, **own: int) -> Seen:
    half = {"no": 10_000, "yes": 10_000}
    return Seen("text-classification", "its columns are those of it", {}, {"train": rows, **own}, half, (60, 200))


def written(seconds: float, speed: float | None = 1e13, seen: Seen | None = None) -> tuple[str, dict[str, Any]]:
    told = {"models": ["google-bert/bert-base-uncased"], "configs": [{"model_type": "bert"}], "sizes": [Size(14)]}
    text = write_recipe(seen or large(), name="reviews", data="hf://a/b", seconds=seconds, speed=speed, **told)
    return text, yaml.safe_load(text)


def test_where_the_time_is_short_trials_are_judged_within_it_on_fewer_rows() -> None:
    text, short = written(seconds=120)
    recipe = Recipe.from_dict(short)
    training, updates = recipe.training, math.ceil((recipe.data.max_train_samples or 0) / BATCH)
    assert (training.num_train_epochs, training.eval_strategy) == (1, "steps")
    assert 8 <= updates / (training.eval_steps or 1) < 16
    assert recipe.search.grace_period == 2
    judged = [round(share * 100_000) for share in (recipe.data.split.validation, recipe.data.split.test)]
    assert all(100 <= count <= 2000 for count in judged), judged
    pace = Pace.of(large(), [Size(14)], BATCH, 1e13)
    first = (training.eval_steps or 1) * pace.update + judged[0] * pace.judged
    assert first < (recipe.search.time_budget_s or 0) / 2, "the first verdict comes in time"
    for key in ("max_train_samples", "eval_strategy", "eval_steps", "num_train_epochs"):
        lines = text.splitlines()
        at = next(n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        assert "#" in lines[at] + lines[at - 1], key


def test_a_time_in_which_not_one_trial_would_be_judged_is_refused_with_the_time_that_it_takes() -> None:
    with pytest.raises(UserError, match=r"120 s are too few for .*bert-base-uncased on this machine(.|\n)*→ Give --time \d+m"):
        written(seconds=120, speed=2e10)


def test_where_there_is_time_enough_whole_epochs_are_made() -> None:
    _, whole = written(seconds=864000, speed=1e14)
    assert whole["training"]["num_train_epochs"] == 3
    assert "eval_steps" not in whole["training"]
    assert "max_train_samples" not in whole["data"]


def test_of_a_validation_split_that_the_data_brings_only_so_many_rows_judge_as_the_time_allows() -> None:
    seen = large(validation=10_000)
    text, short = written(seconds=600, speed=1e11, seen=seen)
    recipe, pace = Recipe.from_dict(short), Pace.of(seen, [Size(14)], BATCH, 1e11)
    judged = recipe.data.max_validation_samples or 10_000
    assert (recipe.training.eval_steps or 1) * pace.update + judged * pace.judged < (recipe.search.time_budget_s or 0) / 2
    assert recipe.training.metric_for_best_model == "loss", "100 validation rows"
    assert "every evaluation judges all of them" in text
    _, whole = written(seconds=864000, speed=1e14, seen=seen)
    assert Recipe.from_dict(whole).data.max_validation_samples is None
    assert "max_validation_samples" not in whole["data"]


@pytest.mark.parametrize(("seconds", "epochs"), [(864000, 3), (200000, 1)])
def test_where_rows_were_not_counted_to_the_end_there_are_no_more_than_those(seconds: float, epochs: int) -> None:
    text, limited = written(seconds, speed=1e15 if epochs == 3 else 1e13, seen=large(COUNTED))
    assert limited["training"]["num_train_epochs"] == epochs
    assert limited["data"]["max_train_samples"] <= 0.8 * COUNTED
    assert limited["data"]["max_validation_samples"] <= 0.1 * COUNTED
    assert "at least 1,000,000 rows" in text


def test_where_the_speed_is_not_known_nothing_is_shortened_or_refused_and_the_recipe_says_so() -> None:
    text, whole = written(seconds=60, speed=None, seen=large(COUNTED, validation=10_000))
    assert whole["training"]["num_train_epochs"] == 3
    assert not {"max_train_samples", "max_validation_samples"} & set(whole["data"])
    assert "was not measured" in text


def test_the_gate_asks_for_more_than_the_commonest_class(tmp_path: Path) -> None:
    seen = look(str(reviews(tmp_path)), str(tmp_path))
    (tmp_path / "gate.yaml").write_text(write_gate(seen, "f1_macro"))
    gate = load_gate(str(tmp_path / "gate.yaml"))
    assert [(rule.measure, rule.min, rule.margin) for rule in gate.rules] == [("f1_macro", None, 0), ("accuracy", 0.8, None)]
