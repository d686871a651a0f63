"""Contradictions among the keys against forgetting are refused, each with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["training.l2_sp_head=0.1"], "training.l2_sp_head", "set training.l2_sp"),
        (["training={l2_sp: 0.1, fsdp: true}"], "training.l2_sp", "fsdp shards them"),
        (["training={ema_decay: 0.99, fsdp: true}"], "training.ema_decay", "fsdp shards them"),
        (["training.ema_decay=1"], "training.ema_decay", "below 1"),
        (["training.wise_ft=1.5"], "training.wise_ft", "from 0 (the base) to 1"),
        (["training.wise_ft=[0.5, -1]"], "training.wise_ft", "-1 is no share"),
        (["training.wise_ft=[]"], "training.wise_ft", "the list is empty"),
        (
            ["training={wise_ft: [0.2, 0.5], eval_strategy: no}", "data.split.validation=0"],
            "training.wise_ft",
            "no validation split to choose by",
        ),
        (["training.replay.data=nowhere.csv"], "training.replay.data", "does not exist"),
        (["training.replay.share=0.5"], "training.replay.share", "no old data to replay"),
        (["training.replay={data: train.csv, share: 1}"], "training.replay.share", "below 1"),
        (["evaluation.retention.data=nowhere.csv"], "evaluation.retention.data", "does not exist"),
        (["evaluation.retention.data={old: nowhere.csv}"], "evaluation.retention.data.old", "does not exist"),
        (["evaluation.retention.data={a/b: train.csv}"], "evaluation.retention.data", "cannot be a retention set's name"),
        (["evaluation.retention.max_drop=0.1"], "evaluation.retention.max_drop", "no retention data"),
        (["evaluation.retention={data: train.csv, choose: true}"], "evaluation.retention.choose", "no ceiling to choose by"),
        (
            ["evaluation.retention={data: train.csv, max_drop: 0.1}", "training.eval_strategy=no"],
            "evaluation.retention.max_drop",
            "watched at every evaluation",
        ),
        (
            ["evaluation.retention={data: train.csv, max_drop: 0.1}", "training.load_best_model_at_end=false"],
            "evaluation.retention.max_drop",
            "would be kept",
        ),
        (
            ["evaluation.calibrate=temperature", "data.split.validation=0", "training.eval_strategy=no"],
            "evaluation.calibrate",
            "fitted on the validation split",
        ),
        (["evaluation.calibrate=platt"], "evaluation.calibrate", "temperature"),
    ],
)
def test_a_contradiction_is_refused(write: Write, overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(), overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert words in str(mistake)


def test_paths_of_old_data_start_at_the_recipe_and_end_absolute(write: Write, tmp_path: Path) -> None:
    text = (
        "training:\n  replay:\n    data: train.csv\n    share: 0.3\n"
        "evaluation:\n  retention:\n    data:\n      old: train.csv\n      web: [train.csv]\n"
    )
    recipe = Recipe.load(write(text)).resolved()
    there = str(tmp_path / "train.csv")
    assert recipe.training.replay.data == there
    assert recipe.evaluation.retention.data == {"old": there, "web": [there]}
    again = Recipe.load(write(recipe.to_yaml(), head="", name="again.yaml"))
    assert again.fingerprint() == recipe.fingerprint()


def test_all_methods_go_together(write: Write) -> None:
    recipe = Recipe.load(
        write(),
        [
            "training={l2_sp: 0.01, l2_sp_head: 0.001, ema_decay: 0.999, wise_ft: [0.25, 0.5], replay: {data: train.csv}}",
            "evaluation={calibrate: temperature, retention: {data: train.csv, max_drop: 0.02}}",
        ],
    )
    assert recipe.training.wise_ft == [0.25, 0.5]
    assert recipe.evaluation.retention.max_drop == 0.02
