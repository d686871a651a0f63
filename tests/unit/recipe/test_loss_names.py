"""What a recipe alone shows to be wrong with its loss, its class weights and its sampling: all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.recipes import assert_says
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe

Write = Callable[..., Path]
LABELS = "data.labels=[ham, spam]"


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["training.loss=focla"], "training.loss", "did you mean focal?"),
        (["training.loss=cross-entropy"], "training.loss", "did you mean cross_entropy?"),
        (["training.loss=hinge"], "training.loss", "write one of cross_entropy, focal, symmetric_cross_entropy"),
        (["training.loss=no_such_module_here.Loss"], "training.loss", "put no_such_module_here.py beside the recipe"),
        (["training.loss=my-losses.Loss"], "training.loss", "write it as package.module.Name"),
        (
            ["training={loss: torch.nn.MSELoss, label_smoothing_factor: 0.1}"],
            "training.label_smoothing_factor",
            "a loss of your own is not smoothed",
        ),
        (["training={loss: focal, loss_args: {gama: 1}}"], "training.loss_args.gama", "did you mean gamma?"),
        (["training={loss: focal, loss_args: {gamma: -1}}"], "training.loss_args.gamma", "write 0 or more; the default is 2"),
        (["training={loss: focal, loss_args: {gamma: high}}"], "training.loss_args.gamma", "'high', which is no number"),
        (
            ["training={loss: symmetric_cross_entropy, loss_args: {log_zero: 4}}"],
            "training.loss_args.log_zero",
            "write a number below 0",
        ),
        (["training.loss_args={gamma: 2}"], "training.loss_args.gamma", "remove it: it has none"),
        ([LABELS, "training.class_weights={spma: 2}"], "training.class_weights.spma", "did you mean spam?"),
        ([LABELS, "training.class_weights={eggs: 2}"], "training.class_weights.eggs", "the classes are ham, spam"),
        ([LABELS, "training.class_weights={ham: 0, spam: 0}"], "training.class_weights", "nothing would be learned"),
        (["training.class_weights={spam: -1}"], "training.class_weights.spam", "write 0 or more"),
        (["training.class_weights_args={beta: 0.9}"], "training.class_weights_args.beta", "write class_weights: effective"),
        (
            ["training={class_weights: effective, class_weights_args: {beta: 1}}"],
            "training.class_weights_args.beta",
            "at least 0 and below 1",
        ),
        (
            ["training={class_weights: effective, class_weights_args: {gamma: 0.9}}"],
            "training.class_weights_args.gamma",
            "it has beta",
        ),
        (["training={class_weights: inverse, sampling: balanced}"], "training.sampling", "together overdo it"),
        (["training.class_weights=invers"], "training.class_weights", "did you mean inverse?"),
        (["training.class_weights={spam: heavy}"], "training.class_weights.spam", "'heavy', which is not"),
        (["training.sampling=even"], "training.sampling", "one of none, balanced"),
    ],
)
def test_it_is_refused(write: Write, overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(), overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert words in str(mistake)


@pytest.mark.parametrize(
    "overrides",
    [
        ["training={loss: focal, loss_args: {gamma: 0}, class_weights: effective, class_weights_args: {beta: 0.9999}}"],
        ["training={loss: symmetric_cross_entropy, loss_args: {alpha: 6, beta: 0.1, log_zero: -4}}"],
        ["training={loss: torch.nn.CrossEntropyLoss, loss_args: {reduction: none}}"],
        ["training={class_weights: {spam: 5}, sampling: balanced}"],
        [LABELS, "training.class_weights={spam: 5}"],
        ["training.class_weights={a.b: 5}"],
        ["training.class_weights=null"],
        ["training.class_weights={0: 1, 1: 5}"],
    ],
)
def test_it_is_taken(write: Write, overrides: list[str]) -> None:
    assert_says(Recipe.load(write(), overrides).resolved(), overrides)


def test_a_file_beside_the_recipe_is_found_and_not_run(write: Write, tmp_path: Path) -> None:
    (tmp_path / "losses_beside_the_recipe.py").write_text("raise SystemExit('it was run')")
    recipe = Recipe.load(write(), ["training.loss=losses_beside_the_recipe.MyLoss"])
    assert recipe.training.loss == "losses_beside_the_recipe.MyLoss"
    (tmp_path / "losses_beside_the_recipe.py").unlink()
    with pytest.raises(RecipeError, match=r"put losses_beside_the_recipe\.py beside the recipe"):
        Recipe.load(write(), ["training.loss=losses_beside_the_recipe.MyLoss"])


def test_the_record_of_an_old_run_loads_without_its_loss(write: Write) -> None:
    recipe = Recipe.load(write(), ["training.loss=no_such_module_here.Loss"], check_paths=False)
    assert recipe.training.loss == "no_such_module_here.Loss"


def test_mistakes_are_listed_together(mistakes: Callable[..., list[str]]) -> None:
    said = mistakes(
        "  labels: [a, b]\ntraining:\n  loss: focal\n  loss_args: {gama: 2}\n"
        "  class_weights: {c: 2, d: -1}\n  sampling: balanced\n  class_weights_args: {beta: 2}\n"
    )
    assert len(said) == 5
    assert "recipe.yaml:9: training.loss_args.gama" in said[0]
