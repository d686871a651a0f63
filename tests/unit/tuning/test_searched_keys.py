"""Whatever is searched reaches the trial: its values are those of the recipe that the trial's process reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.searches import Stage
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe, keys
from tunesmith.recipe.search_space import combinations, parse
from tunesmith.recipe.searched import own_values, trial_recipe
from tunesmith.tuning.job import Job
from tunesmith.tuning.search import Search, Surroundings
from tunesmith.tuning.trials import folder_of

LORA, FULL = {"training.adaptation": "lora"}, {"training.adaptation": "full"}
ADAPTATION: dict[str, Any] = {"training.adaptation": {"choice": ["full", "lora", "linear-probe", "bitfit"]}}


def arrived(stage: Stage, recipe: Recipe, values: dict[str, Any]) -> dict[str, Any]:
    """What a trial's process finds in its recipe, from the values of the trial."""
    made = trial_recipe(recipe, parse(recipe.search.space)[0], values)
    Job(0, str(stage.folder), "prepared").write(made)
    return Job.read(str(stage.folder)).recipe().resolved().model_dump(mode="json")


@pytest.mark.parametrize(
    ("key", "told", "value"),
    [
        ("training.learning_rate", {"loguniform": [1e-5, 1e-2]}, 0.00123),
        ("model.model_name_or_path", {"choice": ["owner/one", "owner/other"]}, "owner/other"),
        ("training.adaptation", {"choice": ["full", "linear-probe"]}, "linear-probe"),
        (
            "data.augment",
            {"choice": [[], [{"name": "typos"}], [{"name": "typos"}, {"name": "word_swap"}]]},
            [{"name": "typos"}],
        ),
        ("training.class_weights", {"choice": ["none", "inverse", {"no": 3.0}]}, {"no": 3.0}),
        ("training.sampling", {"choice": ["none", "balanced"]}, "balanced"),
        ("training.loss", {"choice": ["cross_entropy", "focal"]}, "focal"),
        ("training.per_device_train_batch_size", {"choice": [8, 32]}, 32),
        ("training.batching", {"choice": ["tokens", "fixed"]}, "fixed"),
        ("data.max_length", {"choice": [64, 128]}, 128),
        ("training.unfreeze.every_epochs", {"choice": [None, 0.5]}, 0.5),
        ("training.replay.share", {"quniform": [0.1, 0.5, 0.1]}, 0.3),
    ],
)
def test_a_searched_key_is_the_trials(stage: Stage, key: str, told: dict[str, Any], value: Any) -> None:
    recipe = stage.recipe({key: told}, trial_overrides={"training.replay.data": "hf://owner/old"})
    found = keys.get(arrived(stage, recipe, {key: value}), key)
    if key == "data.augment":
        found = [{"name": one["name"]} for one in found]
    assert found == value


def test_a_schedule_of_unfreezing_is_a_section_or_none(stage: Stage) -> None:
    key = "training.unfreeze"
    recipe = stage.recipe({key: {"choice": [{}, {"every_epochs": 0.5}, {"every_steps": 20, "groups_at_once": 2}]}})
    found = [arrived(stage, recipe, values)["training"]["unfreeze"] for values in combinations(parse(recipe.search.space)[0])]
    assert [(one["every_epochs"], one["every_steps"], one["groups_at_once"]) for one in found] == [
        (None, None, 1),
        (0.5, None, 1),
        (None, 20, 2),
    ]
    assert own_values(recipe, parse(recipe.search.space)[0]) == {key: {}}, "the recipe's own is one of the space's values"


def test_no_schedule_is_none_though_the_recipe_has_one(stage: Stage) -> None:
    key = "training.unfreeze"
    plain = stage.recipe({key: {"choice": [{}, {"every_steps": 20}]}})
    for recipe in (own := plain.with_values({f"{key}.every_epochs": 2.0}), own.resolved()):
        space = parse(recipe.search.space)[0]
        assert own_values(recipe, space)[key]["every_epochs"] == 2.0, "which is none of the space's"
        for values in ({key: {}}, {key: {"every_steps": 20}}, own_values(recipe, space)):
            found = arrived(stage, recipe, values)["training"]["unfreeze"]
            assert (found["every_epochs"], found["every_steps"]) == (
                values[key].get("every_epochs"),
                values[key].get("every_steps"),
            )


def test_ranks_are_those_of_adapters_and_schedules_those_of_a_full_training(stage: Stage) -> None:
    space = {
        **ADAPTATION,
        "training.lora.r": {"choice": [4, 32], "when": LORA},
        "training.unfreeze.every_epochs": {"choice": [None, 0.5], "when": FULL},
    }
    recipe = stage.recipe(space, algorithm="grid", scheduler="none")
    every = list(combinations(parse(recipe.search.space)[0]))
    assert len(every) == 2 + 2 + 1 + 1
    found = [arrived(stage, recipe, values)["training"] for values in every]
    shown = [(one["adaptation"], one["lora"]["r"], one["unfreeze"]["every_epochs"]) for one in found]
    assert shown == [
        ("full", 8, None),
        ("full", 8, 0.5),
        ("lora", 4, None),
        ("lora", 32, None),
        ("linear-probe", 8, None),
        ("bitfit", 8, None),
    ]


def test_a_local_model_is_known_again_by_the_name_that_the_space_has_for_it(stage: Stage, tmp_path: Path) -> None:
    for name in ("base", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    values: dict[str, Any] = {
        "task": "text-classification",
        "model": {"model_name_or_path": "base"},
        "data": {"train": "hf://stanfordnlp/imdb"},
        "search": {"space": {"model.model_name_or_path": {"choice": ["./other", "./base"]}}},
    }
    recipe = Recipe.from_dict(values, base_dir=tmp_path).resolved()
    space = parse(recipe.search.space)[0]
    assert own_values(recipe, space) == {"model.model_name_or_path": "./base"}
    there = arrived(stage, recipe, {"model.model_name_or_path": "./other"})
    assert there["model"]["model_name_or_path"] == str(tmp_path / "other")
    values["search"]["space"]["model.model_name_or_path"]["choice"][0] = "./othr"
    with pytest.raises(RecipeError, match=r"othr does not exist") as raised:
        Recipe.from_dict(values, base_dir=tmp_path)
    assert raised.value.mistakes[0].key == "search.space.model.model_name_or_path.choice[0]"


def test_a_search_that_is_kept_elsewhere_finds_what_lies_beside_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "other", "filler"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "old.csv").touch()
    earlier = tmp_path / "runs" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    mlm = [{"name": "mlm", "model_name_or_path": "./filler"}]
    space = {
        "model": {"model_name_or_path": {"choice": ["owner/base", "./other"]}},
        "data.augment": {"choice": [[], mlm], "when": {"model.model_name_or_path": ["./other"]}},
        "training.seed": {"choice": [1, 2], "when": {"model.model_name_or_path": "./other"}},
        "training.learning_rate": {"loguniform": [1e-5, 1e-2]},
    }
    search = {"space": space, "trial_overrides": {"training.replay.data": "old.csv"}, "warm_start": ["runs/earlier"]}
    values = {"task": "text-classification", "model": {"model_name_or_path": "base"}, "data": {"train": "hf://owner/data"}}
    recipe = Recipe.from_dict({**values, "search": search}, base_dir=tmp_path).resolved()
    before = recipe.fingerprint("search")
    kept = tmp_path / "runs" / "kept"
    kept.mkdir()
    (kept / "search.yaml").write_text(recipe.to_yaml())
    monkeypatch.chdir(kept)
    there = Recipe.load("search.yaml").search
    dimensions = {one.key: one for one in parse(there.space)[0]}
    assert dimensions["model.model_name_or_path"].values == ("owner/base", str(tmp_path / "other"))
    assert dimensions["data.augment"].values[1][0]["model_name_or_path"] == str(tmp_path / "filler")
    assert dimensions["training.seed"].when == {"model.model_name_or_path": (str(tmp_path / "other"),)}
    assert there.trial_overrides == {"training.replay.data": str(tmp_path / "old.csv")}
    assert there.warm_start == [str(earlier)]
    assert recipe.fingerprint("search") == before
    assert recipe.search.space == space, "its trials have the names that it has"


def test_a_loss_beside_the_recipe_is_looked_for_there_by_the_trials(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "own_loss.py").write_text("")
    search = {"space": {"training.loss": {"choice": ["cross_entropy", "own_loss.Mine"]}}, "algorithm": "grid"}
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": "owner/base"},
        "data": {"train": "hf://owner/data"},
    }
    played = Search(
        Recipe.from_dict({**values, "search": search}, base_dir=tmp_path),
        Surroundings(str(tmp_path / "run"), lambda recipe: ("prepared", {})),
    )
    for loss in ("cross_entropy", "own_loss.Mine"):
        trial = played.next()
        assert trial is not None
        recipe = Job.read(folder_of(played.run, trial.number)).recipe()
        assert (recipe.training.loss, recipe.base_dir) == (loss, str(tmp_path))


def test_values_that_the_rest_of_the_recipe_refuses_are_told_before_any_trial(stage: Stage) -> None:
    with pytest.raises(RecipeError, match=r"with full, training\.lora\.r: it has no effect while adaptation is full"):
        stage.recipe(ADAPTATION).with_values({"training.adaptation": "lora", "training.lora.r": 4})
    searched = {**ADAPTATION, "training.lora.r": {"choice": [4], "when": LORA}}
    kept = stage.recipe(searched).with_values({"training.adaptation": "lora", "training.lora.r": 4})
    assert own_values(kept, parse(kept.search.space)[0]) == {"training.adaptation": "lora", "training.lora.r": 4}
