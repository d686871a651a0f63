"""Damage is seeded, keeps what it must keep, and grows with its severity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith.errors import UserError
from tunesmith.evaluation.perturbations import OURS, find, generator, input_role, readable, texts, words
from tunesmith.recipe.suite_names import FITTING, IMAGES, TEXTS, WORDS
from tunesmith.tasks import load_task

TEXT = "I am sure that this is not what we would have wanted, but it's fine.\n\nDo not worry  about it."
SENTENCE = ["Ada", "Lovelace", "wrote", "to", "the", "Royal", "Society", "."]
SEVERITIES = (1, 2, 3, 4, 5)


def picture(side: int = 96, height: int | None = None) -> np.ndarray:
    """A smooth picture with edges and colours."""
    y, x = np.mgrid[: height or side, :side] / side
    disk = ((y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.08).astype(float)
    made = np.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.6 - 0.3 * disk], axis=2)
    return np.asarray(made * 255, dtype=np.uint8)


def value_of(kind: str) -> Any:
    return {"text": TEXT, "strings": SENTENCE, "image": picture()}[kind]


EVERY = [(kind, name) for kind, names in FITTING.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_change_is_the_same_for_the_same_seed_example_kind_and_severity(kind: str, name: str) -> None:
    change, value = find([name], kind)[name], value_of(kind)
    for severity in SEVERITIES:
        first = change(value, severity, generator(7, "a", name, severity))
        assert np.array_equal(first, change(value, severity, generator(7, "a", name, severity)))
        assert not np.array_equal(first, value), f"{name} changes nothing at {severity}"
        assert type(first) is type(value)
        assert np.array_equal(value, value_of(kind)), "the input is left as it was"


def test_other_seeds_examples_kinds_and_severities_draw_other_numbers() -> None:
    first = generator(1, "a", "typos", 1).random()
    others = [(2, "a", "typos", 1), (1, "b", "typos", 1), (1, "a", "case", 1), (1, "a", "typos", 2)]
    assert all(generator(*other).random() != first for other in others)


@pytest.mark.parametrize("name", WORDS)
def test_tagged_sentences_keep_the_number_of_their_words(name: str) -> None:
    for severity in SEVERITIES:
        for k in range(30):
            changed = find([name], "strings")[name](SENTENCE, severity, generator(k, "a", name, severity))
            assert len(changed) == len(SENTENCE)
            assert all(word.strip() for word in changed)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("text", ["a", "no", "I", "don't", " ", "12 34", "é ü", "x" * 400, "one\ttwo", "' \""])
def test_no_text_is_too_odd(name: str, text: str) -> None:
    for severity in SEVERITIES:
        changed = find([name], "text")[name](text, severity, generator(0, "a", name, severity))
        assert isinstance(changed, str)
        assert changed.strip() or not text.strip(), f"{name} left nothing of {text!r}"


def test_more_severity_hits_more_words() -> None:
    sentence = " ".join(f"word{chr(97 + k)}" for k in range(20))
    for change in (texts.typos, texts.keyboard, texts.case):
        hit = [
            sum(a != b for a, b in zip(change(sentence, s, np.random.default_rng(0)).split(), sentence.split(), strict=True))
            for s in SEVERITIES
        ]
        assert hit == [1, 2, 4, 7, 10]
    assert len(texts.word_drop(sentence, 5, np.random.default_rng(0)).split()) == 10


def test_contractions_go_both_ways() -> None:
    rng = np.random.default_rng(0)
    assert texts.contractions("I do not know. It's late.", 5, rng) == "I don't know. It is late."
    assert texts.contractions("Nothing here.", 5, rng) == "Nothing here."


def test_lookalikes_look_alike_and_are_others() -> None:
    changed = words.lookalikes(["peace"], 5, np.random.default_rng(0))[0]
    assert len(changed) == 5
    assert not set(changed) & set("peace")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(224, 224), (32, 32), (8, 8), (20, 33), (1, 1), (700, 9)])
def test_images_of_any_size_keep_it(name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for severity in (1, 5):
        changed = find([name], "image")[name](image, severity, generator(0, "a", name, severity))
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8


@pytest.mark.parametrize("name", [one for one in IMAGES if one not in ("elastic_transform", "frost", "fog", "snow")])
def test_more_severity_is_farther_from_the_image(name: str) -> None:
    image, change = picture(128), find([name], "image")[name]
    far = [
        np.mean([np.square(change(image, s, generator(k, "a", name, s)).astype(float) - image).mean() for k in range(6)])
        for s in SEVERITIES
    ]
    assert far == sorted(far), far


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "glass_blur", "zoom_blur", "contrast", "pixelate"])
def test_what_blurs_or_pales_keeps_the_brightness(name: str) -> None:
    image = picture(64)
    changed = find([name], "image")[name](image, 5, generator(0, "a", name, 5))
    assert changed.mean() == pytest.approx(image.mean(), abs=4)


def test_blur_grows_with_the_image() -> None:
    """An image and its enlargement look alike after the same damage."""
    from PIL import Image

    small = picture(56)
    large = np.asarray(Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC))
    for name in ("defocus_blur", "motion_blur", "elastic_transform"):
        change = find([name], "image")[name]
        one, other = (np.square(change(i, 3, generator(1, "a", name, 3)).astype(float) - i).mean() for i in (small, large))
        assert 0.3 < one / other < 3, name


def test_shot_noise_is_poisson() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    changed = find(["shot_noise"], "image")["shot_noise"](grey, 1, np.random.default_rng(0)) / 255
    assert changed.mean() == pytest.approx(128 / 255, abs=0.003)
    assert changed.var() == pytest.approx(128 / 255 / 60, rel=0.05)


def test_a_large_image_is_shrunk_before_it_is_damaged() -> None:
    assert readable(np.zeros((2000, 1000, 3), dtype=np.uint8), "image").shape == (512, 256, 3)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("text-classification", ("text", "text")),
        ("token-classification", ("tokens", "strings")),
        ("image-classification", ("image", "image")),
    ],
)
def test_the_first_input_is_damaged(task: str, expected: tuple[str, str]) -> None:
    assert input_role(load_task(task)) == expected


def test_every_name_has_its_function() -> None:
    assert {kind: tuple(names) for kind, names in OURS.items()} == FITTING
    for kind in OURS:
        assert tuple(find([], kind)) == FITTING[kind]


def test_a_perturbation_that_does_not_fit_or_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="word_drop does not fit strings"):
        find(["word_drop"], "strings")
    with pytest.raises(UserError, match="did you mean gaussian_noise"):
        find(["gausian_noise"], "image")
