"""A search section is read as it is meant, and every mistake in it is told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe
from tunesmith.recipe.search_space import Dimension, combinations, parse

PLAIN: dict[str, Any] = {
    "task": "text-classification",
    "model": {"model_name_or_path": "google-bert/bert-base-uncased"},
    "data": {"train": "hf://stanfordnlp/imdb"},
}
RATE = {"training.learning_rate": {"loguniform": [1e-5, 1e-2]}}

SEEDS = {"training.seed": {"grid": [1, 2]}}


def made(space: Any, **section: Any) -> Recipe:
    return Recipe.from_dict({**PLAIN, "search": {"space": space, **section}})


@pytest.mark.parametrize(
    ("space", "section", "key", "words"),
    [
        ({"training.lerning_rate": {"uniform": [0, 1]}}, {}, "training.lerning_rate", "did you mean training.learning_rate?"),
        ({"training.weight_decay": {"uniform": [0.2, 0.1]}}, {}, "uniform", "write [0.1, 0.2]"),
        ({"training.weight_decay": {"uniform": [0.1, 0.1]}}, {}, "uniform", "the range is empty"),
        ({"training.learning_rate": {"loguniform": [0, 1]}}, {}, "loguniform", "cannot begin at 0"),
        ({"training.learning_rate": {"logunifrom": [1e-5, 1]}}, {}, "logunifrom", "did you mean loguniform?"),
        ({"training.learning_rate": [1e-5, 1e-4]}, {}, "training.learning_rate", "write {choice: [1e-05, 0.0001]}"),
        ({"training.lora.r": {"randint": [4, 8.5]}}, {}, "randint", "whole numbers"),
        ({"training.weight_decay": {"quniform": [0, 0.1, 1]}}, {}, "quniform", "a step of 1 does not fit"),
        ({"training.optim": {"choice": []}}, {}, "choice", "the list is empty"),
        ({"training.optim": {"choice": ["sgd", "sgd"]}}, {}, "choice", "there twice"),
        ({"training.learning_rate": {"choice": [-1, 3e-5]}}, {}, "choice", "a number above 0"),
        ({"training.optim": {"choice": ["adamw_torch", "adamm"]}}, {}, "choice", "there is no optimizer adamm"),
        ({"training.lora.r": {"choice": [4, 8]}}, {}, "training.lora.r", "or add when: {KEY: VALUE}"),
        ({"data.split.test": {"choice": [0.1]}}, {}, "data.split.test", "judged on different rows"),
        ({"training.metric_for_best_model": {"choice": ["f1"]}}, {}, "metric_for_best_model", "compared by it"),
        ({**RATE, "training.lora.r": {"choice": [4], "when": {"training.adaption": "lora"}}}, {}, "when", "is not searched"),
        (RATE, {"algorithm": "grid"}, "loguniform", "no end of values"),
        (RATE, {"objectives": ["accuracy", "latency_ms"]}, "search.scheduler", "set search.scheduler: none"),
        (RATE, {"objectives": ["latency_ms", "accuracy"], "scheduler": "none"}, "search.objectives", "must be a metric"),
        (
            RATE,
            {
                "objectives": ["accuracy", "size_mb", "latency_ms"],
                "scheduler": "none",
                "trial_overrides": {"training.num_workers": 2},
            },
            "search.objectives",
            "a trial of 2 workers cannot measure size_mb and latency_ms",
        ),
        (RATE, {"trial_overrides": {"training.num_workers": 0}}, "trial_overrides", "a whole number of at least 1"),
        (RATE, {"trial_overrides": {"training.learning_rate": 1.0}}, "trial_overrides", "is searched too"),
        (RATE, {"warm_start": ["nowhere"]}, "search.warm_start", "nowhere is no run"),
        (RATE, {"scheduler": "pbt", "winner": "refit"}, "search.winner", "set search.winner: checkpoint"),
        (
            RATE,
            {"scheduler": "pbt", "trial_overrides": {"training.num_workers": 2}},
            "search.scheduler",
            "→ set search.trial_overrides: {training.num_workers: 1}, or search.scheduler: asha",
        ),
        ({"training.optim": {"choice": ["sgd"]}}, {"scheduler": "pbt"}, "training.optim", "in the middle of a training"),
        (RATE, {"scheduler": "pbt", "algorithm": "gp"}, "search.algorithm", "pbt draws its population at random"),
        (RATE, {"scheduler": "none", "grace_period": 2}, "search.grace_period", "it has no effect while scheduler is none"),
        (RATE, {"scheduler": "pbt", "reduction_factor": 2}, "search.reduction_factor", "set search.scheduler: asha"),
        (RATE, {"generations": 9}, "search.generations", "remove it, or set search.scheduler: pbt"),
        (RATE, {"tolerance": 0.1}, "search.tolerance", "it has no effect while there is one objective"),
        (SEEDS, {"algorithm": "grid", "start_with_recipe": False}, "search.start_with_recipe", "while algorithm is grid"),
        ({}, {"num_samples": 3}, "search.space", "nothing to search"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(space: Any, section: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(RecipeError) as raised:
        made(space, **section)
    (mistake,) = raised.value.mistakes
    assert key in mistake.key
    assert words in str(mistake)


@pytest.mark.parametrize(
    ("space", "section", "why"),
    [
        (RATE, {"scheduler": "pbt"}, "scheduler is pbt"),
        (RATE, {"algorithm": "random"}, "algorithm is random"),
        (SEEDS, {"algorithm": "grid"}, "algorithm is grid"),
    ],
)
def test_earlier_results_are_refused_where_nothing_learns_from_them(
    tmp_path: Path, space: Any, section: dict[str, Any], why: str
) -> None:
    (tmp_path / "manifest.json").touch()
    with pytest.raises(RecipeError, match=f"search.warm_start: it has no effect while {why}"):
        made(space, warm_start=[str(tmp_path)], **section)
    assert made(RATE, warm_start=[str(tmp_path)])


def test_what_only_one_process_can_measure_wants_trials_of_one_worker() -> None:
    search = {"space": RATE, "objectives": ["accuracy", "latency_ms"], "scheduler": "none"}
    several = {**PLAIN, "training": {"num_workers": 2}}
    with pytest.raises(RecipeError, match=r"set search\.trial_overrides: \{training\.num_workers: 1\}"):
        Recipe.from_dict({**several, "search": search})
    assert Recipe.from_dict({**several, "search": {**search, "trial_overrides": {"training.num_workers": 1}}})
    assert Recipe.from_dict({**several, "search": {**search, "objectives": ["accuracy", "f1_macro"]}})


STEPS = {"training.eval_strategy": "steps"}


@pytest.mark.parametrize(
    "space",
    [
        {
            "training.eval_strategy": {"choice": ["steps", "epoch"]},
            "training.eval_steps": {"choice": [10, 20], "when": STEPS},
        },
        {"training.eval_strategy": {"choice": ["steps"]}, "training.eval_steps": {"choice": [10, 20]}},
        {"training.lora.r": {"choice": [4, 8]}, "training.adaptation": {"choice": ["lora"]}},
    ],
)
def test_values_that_another_searched_key_makes_sound_are_no_mistakes(space: dict[str, Any]) -> None:
    assert made(space).search.space == space
    assert made(dict(reversed(space.items())))


def test_a_key_that_counts_with_some_values_alone_wants_its_condition() -> None:
    space = {"training.lora.r": {"choice": [4, 8]}, "training.adaptation": {"choice": ["full", "lora"]}}
    with pytest.raises(RecipeError, match=r"or add when: \{KEY: VALUE\}"):
        made(space)


def test_a_grid_of_a_million_points_is_refused_with_their_number() -> None:
    wide = {"grid": [n / 1e4 for n in range(1, 101)]}
    space = dict.fromkeys(("training.learning_rate", "training.weight_decay", "training.l2_sp"), wide)
    with pytest.raises(RecipeError, match="1,000,000 combinations, more than 1,000"):
        made(space, algorithm="grid")


def test_every_mistake_of_a_space_is_listed_at_once() -> None:
    with pytest.raises(RecipeError) as raised:
        made({"training.lr": {"uniform": [0, 1]}, "training.weight_decay": {"uniform": [1, 0]}, "model.dropout": 3})
    assert len(raised.value.mistakes) == 3


def test_a_mistake_of_the_recipe_itself_is_told_once_beside_its_search() -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe.from_dict(
            {**PLAIN, "training": {"lora": {"r": 4}}, "search": {"space": {**RATE, "training.seed": {"choice": [1, 2]}}}}
        )
    assert [mistake.key for mistake in raised.value.mistakes] == ["training.lora.r"]


def test_dotted_and_nested_keys_are_the_same_space() -> None:
    nested = {"training": {"learning_rate": {"loguniform": [1e-5, 1e-2]}, "lora": {"r": {"choice": [4, 8]}}}}
    dotted = {"training.learning_rate": {"loguniform": [1e-5, 1e-2]}, "training.lora.r": {"choice": [4, 8]}}
    keys = [[(one.key, one.kind, one.values, one.low) for one in parse(space)[0]] for space in (nested, dotted)]
    assert keys[0] == keys[1]


def test_conditions_come_before_what_hangs_on_them_and_circles_are_refused() -> None:
    space, flaws = parse(
        {
            "training.lora.r": {"grid": [4, 8], "when": {"training.adaptation": "lora"}},
            "training.adaptation": {"grid": ["full", "lora"]},
        }
    )
    assert not flaws
    assert [one.key for one in space] == ["training.adaptation", "training.lora.r"]
    assert list(combinations(space)) == [
        {"training.adaptation": "full"},
        {"training.adaptation": "lora", "training.lora.r": 4},
        {"training.adaptation": "lora", "training.lora.r": 8},
    ]
    a, b = {"choice": [1], "when": {"b": 1}}, {"choice": [1], "when": {"a": 1}}
    assert {flaw.what for flaw in parse({"a": a, "b": b})[1]} == {"a hangs on itself", "b hangs on itself"}


def test_steps_are_counted_without_rounding_errors() -> None:
    assert Dimension("x", "quniform", low=0, high=0.3, step=0.1).all_values() == (0.0, 0.1, 0.2, 0.3)


def test_a_search_changes_nothing_of_a_training() -> None:
    plain = Recipe.from_dict(PLAIN)
    assert made(RATE).fingerprint() == plain.fingerprint()
    assert made(RATE).fingerprint("search") != plain.fingerprint("search")


def test_values_are_written_by_key_and_sections_left_out() -> None:
    changed = made(RATE).with_values(
        {"training.learning_rate": 0.5, "training.unfreeze": {"every_epochs": 1.0}}, without=("search",)
    )
    assert changed.training.learning_rate == 0.5
    assert changed.training.unfreeze.every_epochs == 1.0
    assert not changed.search.space
