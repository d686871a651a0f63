"""Augmentation in a recipe: a list of named operations, each mistake told with the nearest thing that exists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe, augment
from tunesmith.recipe.base import variants_of
from tunesmith.recipe.data import DataSection
from tunesmith.recipe.task_names import KNOWN
from tunesmith.tasks import load_task

pytestmark = pytest.mark.unit

Write = Callable[..., Path]
IMAGES = "task=image-classification"
NAMES = variants_of(DataSection.model_fields["augment"].annotation)


def test_operations_keep_their_order_and_have_their_defaults(write: Write) -> None:
    recipe = Recipe.load(write("  augment:\n    - {name: typos, rate: 0.2}\n    - name: word_dropout\n      p: 1\n"))
    first, second = recipe.data.augment
    assert (first.name, first.p, second.name, second.p) == ("typos", 0.5, "word_dropout", 1.0)
    assert isinstance(first, augment.Typos)
    assert first.rate == 0.2
    again = Recipe.load(write(head=recipe.to_yaml(), name="again.yaml"))
    assert again.data.augment == recipe.data.augment
    assert recipe.resolved().data.augment == recipe.data.augment
    assert "augment" not in str(Recipe.load(write()).to_yaml())


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        ([IMAGES, "data.augment=[{name: rotaton}]"], "data.augment[0]", "there is no 'rotaton'\n    → did you mean rotation?"),
        ([IMAGES, "data.augment=[{name: hflip}, {name: zoom}]"], "data.augment[1]", "write one of rotation, hflip"),
        ([IMAGES, "data.augment=[{name: rotation, degress: 3}]"], "data.augment[0].degress", "did you mean degrees?"),
        ([IMAGES, "data.augment=[{name: hflip, x: 3}]"], "data.augment[0].x", "hflip has no argument 'x'\n    → it has p"),
        ([IMAGES, "data.augment=[{name: rotation, degrees: 300}]"], "data.augment[0].degrees", "above 0 and at most 180"),
        (
            [IMAGES, "data.augment=[{name: rotation, p: 2}]"],
            "data.augment[0].p",
            "at least 0 and at most 1; the default is 0.5",
        ),
        ([IMAGES, "data.augment=[{name: rotation, p: true}]"], "data.augment[0].p", "found true"),
        ([IMAGES, "data.augment=[{name: crop, scale: [0.9, 0.2]}]"], "data.augment[0]", "scale is [0.9, 0.2]"),
        ([IMAGES, "data.augment=[{name: crop, scale: [0.2, 1.5]}]"], "data.augment[0]", "at most 1"),
        ([IMAGES, "data.augment=[{name: blur, sigma: [1]}]"], "data.augment[0].sigma", "a list of numbers"),
        ([IMAGES, "data.augment=[{degrees: 3}]"], "data.augment[0]", "which has no name"),
        ([IMAGES, "data.augment=[h-flip]"], "data.augment[0]", "write [{name: hflip}]"),
        ([IMAGES, "data.augment=hflip"], "data.augment", "write [{name: hflip}]"),
        ([IMAGES, "data.augment={name: hflip}"], "data.augment", "write [{name: hflip}]"),
        (
            [IMAGES, "data.augment=[{name: typos}]"],
            "data.augment[0]",
            "typos does not fit the examples of image-classification",
        ),
        (["data.augment=[{name: hflip}]"], "data.augment[0]", "write one of word_dropout, word_swap, typos, mlm"),
        (["data.augment=[{name: mlm}]"], "data.augment[0].model_name_or_path", "mlm needs model_name_or_path"),
        (
            [IMAGES, "data.augment=[{name: mlm, model_name_or_path: a/b}]"],
            "data.augment[0]",
            "mlm does not fit the examples of image-classification",
        ),
        (
            ["task=token-classification", "data.augment=[{name: mlm, model_name_or_path: a/b}]"],
            "data.augment[0]",
            "mlm does not fit the examples of token-classification",
        ),
        (
            ["data.augment=[{name: mlm, model_name_or_path: ./none}]"],
            "data.augment[0].model_name_or_path",
            "none does not exist",
        ),
        (
            ["task=token-classification", "data.augment=[{name: word_swap}]"],
            "data.augment[0]",
            "write one of word_dropout, typos",
        ),
        ([IMAGES, "data.augment=[{name: mixup}, {name: cutmix}]"], "data.augment[1]", "give mixup a chance below 1"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(write: Write, overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(), overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert words in str(mistake)


def test_a_mistake_has_its_line(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml:8: data\.augment\[1\]\.rate"):
        Recipe.load(write("  augment:\n    - name: typos\n    - {name: word_swap, rate: many}\n"))


def test_a_model_that_cannot_fill_masks_is_refused_by_its_config(write: Write, tmp_path: Path) -> None:
    for name, kind in (("classifier", "BertForSequenceClassification"), ("masked", "BertForMaskedLM")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"architectures": ["{kind}"]}}')
    with pytest.raises(RecipeError, match="classifier is a BertForSequenceClassification, without a head that fills masks"):
        Recipe.load(write("  augment: [{name: mlm, model_name_or_path: classifier}]\n"))
    recipe = Recipe.load(write("  augment: [{name: mlm, model_name_or_path: masked}]\n"))
    (operation,) = recipe.resolved().data.augment
    assert isinstance(operation, augment.MaskedLM)
    assert operation.model_name_or_path == str(tmp_path / "masked"), "from the recipe's folder, wherever a worker runs"
    assert Recipe.load(write(head=recipe.to_yaml(), name="b/again.yaml")).data.augment == [operation]


def test_two_ways_of_joining_are_taken_where_each_can_be_reached(write: Write) -> None:
    recipe = Recipe.load(write(), [IMAGES, "data.augment=[{name: mixup, p: 0.5}, {name: cutmix}]"])
    assert [operation.p for operation in recipe.data.augment] == [0.5, 1.0]


@pytest.mark.parametrize("name", KNOWN)
def test_a_task_takes_what_the_recipe_thinks_it_takes(name: str) -> None:
    assert tuple(getattr(load_task(name), "augmentations", ())) == KNOWN[name].augmentations
    assert set(KNOWN[name].augmentations) <= set(NAMES)


def test_every_operation_fits_some_task_and_describes_its_arguments() -> None:
    assert set(NAMES) == {name for facts in KNOWN.values() for name in facts.augmentations}
    for name, section in NAMES.items():
        needs = {"model_name_or_path": "owner/model"} if name == "mlm" else {}
        made = TypeAdapter(section).validate_python({"name": name, **needs})
        assert section.__doc__
        assert all(field.description for key, field in section.model_fields.items() if key != "name"), name
        assert 0 <= made.p <= 1  # type: ignore[attr-defined]
