"""One recipe over several seeds: which folder is gone on with, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.data import texts
from support.in_process import without_ray
from support.models import tiny_bert
from tunesmith import storage
from tunesmith.errors import RunError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.verbs.compare_recipes import RESULT, Variant, place_of, seeded
from tunesmith.verbs.repeat import _unfinished, repeat

pytestmark = pytest.mark.unit

COMMAND = ["tunesmith", "train", "recipe.yaml"]


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    storage.write_text(tmp_path / "train.csv", "text,label\n")
    values = {
        "name": "few",
        "task": "text-classification",
        "model": {"model_name_or_path": "owner/base"},
        "data": {"train": str(tmp_path / "train.csv"), "few_shot": {"per_class": 4, "seeds": 3}},
        "training": {"output_dir": str(tmp_path / "runs")},
    }
    return Variant("few", Recipe.from_dict(values))


def begun(variant: Variant, folder: str, seed: int = 42) -> str:
    """A folder in which the first of the trainings has begun."""
    place = storage.join(variant.recipe.training.output_dir, folder)
    run = Run.create(seeded(variant, seed, 42).resolved(), COMMAND, place_of(place, variant, seed))
    run.lock().release()
    return place


def test_every_seed_has_its_own_drawing(variant: Variant) -> None:
    recipes = [seeded(variant, seed, 42) for seed in (42, 43, 44)]
    assert [one.training.seed for one in recipes] == [42, 43, 44]
    first = variant.recipe.data.few_shot.seed
    assert [one.data.few_shot.seed for one in recipes] == [first, first + 1, first + 2]
    assert all(one.data.few_shot.seeds == 1 for one in recipes)


def test_the_newest_unfinished_repetition_is_gone_on_with(variant: Variant) -> None:
    assert _unfinished(variant, 3) is None
    begun(variant, "compare-few-20260101-000000")
    newest = begun(variant, "compare-few-20260102-000000", seed=43)
    begun(variant, "compare-other-20260103-000000")
    assert _unfinished(variant, 3) == newest


def test_a_finished_one_is_not_gone_on_with_nor_one_before_it(variant: Variant) -> None:
    begun(variant, "compare-few-20260101-000000")
    storage.write_text(storage.join(begun(variant, "compare-few-20260102-000000"), RESULT), "{}")
    assert _unfinished(variant, 3) is None


def test_one_of_another_recipe_is_left_alone(variant: Variant) -> None:
    begun(Variant("few", variant.recipe.override("training.learning_rate=1e-3")), "compare-few-20260101-000000")
    assert _unfinished(variant, 3) is None


def test_a_single_run_is_no_place_for_several(variant: Variant) -> None:
    place = place_of(begun(variant, "compare-few-20260101-000000"), variant, 42)
    with pytest.raises(RunError, match=r"is a single run, and this recipe is trained over 3 seeds\n    → "):
        repeat(variant.recipe, seeds=3, folder=place)


def test_a_repetition_is_gone_on_with_or_begun_again_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    storage.write_text(
        tmp_path / "rows.csv", "\n".join(["text,label", *(f"{row['text']},{row['label']}" for row in texts(80))])
    )
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(tiny_bert(tmp_path / "base"))},
        "data": {"train": str(tmp_path / "rows.csv"), "few_shot": {"per_class": 8, "seeds": 2}},
        "training": {"output_dir": str(tmp_path / "runs"), "max_steps": 2, "use_gpu": False},
    }
    recipe = Recipe.from_dict(values)
    first = repeat(recipe, seeds=2)
    made = {path: Path(path, "metrics.json").stat().st_mtime_ns for path in first.outcomes[0].runs}
    assert len(made) == 2

    Path(first.folder, "comparison.json").unlink()  # as if it had been interrupted in the last moment
    again = repeat(recipe, seeds=2)
    assert again.folder == first.folder
    assert {path: Path(path, "metrics.json").stat().st_mtime_ns for path in made} == made, "what is done stays"

    repeat(recipe, seeds=2, folder=first.folder, force=True)
    assert all(Path(path, "metrics.json").stat().st_mtime_ns > then for path, then in made.items()), "by force, anew"
