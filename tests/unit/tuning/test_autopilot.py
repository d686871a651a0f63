"""The autopilot sees what the data is, and what it writes is a sound recipe with a reason for each choice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.models import tiny_bert
from tunesmith.errors import UserError
from tunesmith.recipe import Recipe
from tunesmith.recipe.gate import load_gate
from tunesmith.tuning.autopilot import write_gate, write_recipe
from tunesmith.tuning.looking import Seen, count_layers, look


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


def test_columns_with_other_names_are_told_by_what_they_hold(tmp_path: Path) -> None:
    seen = look(str(reviews(tmp_path, "what_was_said,mood")), str(tmp_path))
    assert seen.columns == {"text": "what_was_said", "label": "mood"}


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("a,b\n" + "\n".join(f"{n},{n * 7}" for n in range(50)))
    with pytest.raises(UserError, match="--task text-classification --column text=COLUMN"):
        look(str(tmp_path / "numbers.csv"), str(tmp_path))


def test_the_recipe_is_sound_and_every_choice_has_its_reason(tmp_path: Path) -> None:
    reviews(tmp_path)
    tiny_bert(tmp_path / "base")
    seen = look(str(tmp_path / "reviews.csv"), str(tmp_path))
    text = write_recipe(
        seen, name="reviews", data="reviews.csv", models=["./base"], configs=[{"model_type": "bert"}], layers=[4], seconds=600
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
        "image-classification", "the data is a folder of pictures", {}, 20_000, ("train", "test"), {"a": 9, "b": 9}, (0, 0)
    )
    text = write_recipe(
        seen,
        name="x",
        data="hf://a/b",
        models=["a/resnet-18", "a/resnet-50"],
        configs=[None, None],
        layers=[6, None],
        seconds=3600,
    )
    written = yaml.safe_load(text)
    space = written["search"]["space"]
    assert space["model.model_name_or_path"] == {"choice": ["a/resnet-18", "a/resnet-50"]}
    assert space["training.adaptation"] == {"choice": ["full", "linear-probe"]}
    assert "training.lora.r" not in space
    assert "training.class_weights" not in space, "the classes are even"
    assert "training.unfreeze.every_epochs" not in space, "the second model's layers are not known"
    assert written["data"]["split"] == {"validation": 0.1, "test": 0.0}


def test_layer_groups_are_counted_by_the_config_alone(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    assert count_layers("text-classification", str(tmp_path / "base")) == 4  # the head, two layers, the embeddings
    assert count_layers("text-classification", str(tmp_path / "none")) is None


def test_the_gate_asks_for_more_than_the_commonest_class(tmp_path: Path) -> None:
    seen = look(str(reviews(tmp_path)), str(tmp_path))
    (tmp_path / "gate.yaml").write_text(write_gate(seen, "f1_macro"))
    gate = load_gate(str(tmp_path / "gate.yaml"))
    assert [(rule.measure, rule.min, rule.margin) for rule in gate.rules] == [("f1_macro", None, 0), ("accuracy", 0.8, None)]
