"""Each operation on images does what its name and its arguments say, to each image by its own random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from tunesmith.recipe.augment import AnyOperation
from tunesmith.tasks.augment import geometry, pixels, randaugment
from tunesmith.tasks.augment.pictures import OPERATIONS, cutmix, mixup

pytestmark = pytest.mark.unit

Rngs = list[np.random.Generator]


def operation(name: str, **arguments: Any) -> Any:
    return TypeAdapter(AnyOperation).validate_python({"name": name, **arguments})


def rngs(n: int, seed: int = 0) -> Rngs:
    return [np.random.default_rng((seed, k)) for k in range(n)]


def noise(n: int = 4, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((n, 3, height, width), dtype=np.float32))


def ramp(height: int, width: int) -> torch.Tensor:
    """Red grows to the right, green downwards: shows where a pixel came from. Bilinear sampling keeps it exact."""
    y, x = torch.meshgrid(torch.linspace(0.2, 0.8, height), torch.linspace(0.2, 0.8, width), indexing="ij")
    return torch.stack([x, y, torch.full_like(x, 0.5)])[None]


@pytest.mark.parametrize(("quarters", "shape"), [(1, (12, 12)), (2, (8, 12)), (-1, (9, 9))])
def test_a_turn_by_quarters_is_exact_and_counter_clockwise(quarters: int, shape: tuple[int, int]) -> None:
    images = noise(2, *shape)
    turned = geometry.affine(images, geometry.turning(torch.full((2,), quarters * np.pi / 2)))
    torch.testing.assert_close(turned, torch.rot90(images, quarters, (-2, -1)), atol=1e-5, rtol=0)


def test_a_turn_is_by_the_drawn_angle_whatever_the_shape() -> None:
    images, turn = ramp(21, 31).repeat(3, 1, 1, 1), operation("rotation", degrees=40)
    turned = geometry.rotation(images, turn, rngs(3))
    for image, rng in zip(turned, rngs(3), strict=True):
        angle = np.deg2rad(rng.uniform(-40, 40))
        # The pixel 6 to the right and 4 below the centre comes from there, turned back.
        x, y = 6 * np.cos(angle) - 4 * np.sin(angle), 6 * np.sin(angle) + 4 * np.cos(angle)
        found = image[:2, 10 + 4, 15 + 6]
        np.testing.assert_allclose(found, [0.5 + x * 0.6 / 30, 0.5 + y * 0.6 / 20], atol=1e-4)


def test_uncovered_corners_get_the_fill() -> None:
    white = torch.ones(1, 3, 20, 20)
    for fill in (0.0, 0.5, 1.0):
        turned = geometry.affine(white, geometry.turning(torch.tensor([np.pi / 4])), fill)
        assert turned[0, 0, 0, 0] == pytest.approx(fill, abs=1e-6)
        assert turned[0, 0, 10, 10] == pytest.approx(1, abs=1e-6)


def test_flips_are_exact() -> None:
    images = noise()
    assert torch.equal(geometry.hflip(images, operation("hflip"), rngs(4)), images[..., list(range(11, -1, -1))])
    assert torch.equal(geometry.vflip(images, operation("vflip"), rngs(4))[0, 0, 0], images[0, 0, -1])


def test_a_crop_is_a_part_of_the_drawn_area_and_shape() -> None:
    images, part = ramp(30, 30).repeat(200, 1, 1, 1), operation("crop", scale=[0.25, 0.5], ratio=[0.5, 2])
    cropped = geometry.crop(images, part, rngs(200))
    wide = (cropped[:, 0, 15, 25] - cropped[:, 0, 15, 5]) / (20 * 0.6 / 29)
    high = (cropped[:, 1, 25, 15] - cropped[:, 1, 5, 15]) / (20 * 0.6 / 29)
    area, ratio = wide * high, wide / high
    assert 0.25 - 1e-3 <= area.min() < 0.28
    assert 0.47 < area.max() <= 0.5 + 1e-3
    assert 0.5 - 1e-3 <= ratio.min() < 0.55
    assert 1.8 < ratio.max() <= 2 + 1e-3
    whole = geometry.crop(images[:1], operation("crop", scale=[1, 1], ratio=[1, 1]), rngs(1))
    torch.testing.assert_close(whole, images[:1], atol=1e-5, rtol=0)


def test_colours_change_by_the_factors() -> None:
    images = 0.3 + 0.3 * noise(3)

    def only(**argument: float) -> torch.Tensor:
        rest = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
        return pixels.color_jitter(images, operation("color_jitter", **{**rest, **argument}), rngs(3))

    factor = torch.tensor([rng.uniform(0.7, 1.3) for rng in rngs(3)], dtype=torch.float32)[:, None, None, None]
    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(only(brightness=0.3), images * factor, atol=1e-5, rtol=0)
    torch.testing.assert_close(only(saturation=0.3), grey + factor * (images - grey), atol=1e-3, rtol=0)
    mean = grey.mean((-2, -1), keepdim=True)
    torch.testing.assert_close(only(contrast=0.3), mean + factor * (images - mean), atol=1e-3, rtol=0)
    turned = only(hue=0.1)
    torch.testing.assert_close(turned.amax(1), images.amax(1), atol=1e-4, rtol=0)  # hue keeps value
    torch.testing.assert_close(turned.amin(1), images.amin(1), atol=1e-4, rtol=0)  # and saturation
    assert (turned - images).abs().max() > 0.01
    assert torch.equal(only(), images)


def test_noise_has_the_standard_deviation() -> None:
    grey = torch.full((2, 3, 100, 100), 0.5)
    made = pixels.noise(grey, operation("noise", std=0.08), rngs(2)) - grey
    assert float(made.std()) == pytest.approx(0.08, rel=0.02)
    assert float(made.mean()) == pytest.approx(0, abs=0.002)
    assert not torch.equal(made[0], made[1])
    assert pixels.noise(torch.ones(1, 3, 9, 9), operation("noise", std=1), rngs(1)).max() <= 1


def test_a_blur_is_a_gaussian_of_the_drawn_width() -> None:
    point = torch.zeros(2, 1, 41, 41)
    point[:, :, 20, 20] = 1
    blurred = pixels.blur(point, operation("blur", sigma=[1.0, 3.0]), rngs(2))
    distance = torch.arange(41.0) - 20
    for image, rng in zip(blurred, rngs(2), strict=True):
        profile = image[0].sum(0)
        assert float(profile.sum()) == pytest.approx(1, abs=1e-4)
        assert float((profile * distance**2).sum().sqrt()) == pytest.approx(rng.uniform(1, 3), rel=0.05)


def test_erasing_paints_one_rectangle_of_the_drawn_area() -> None:
    images = torch.full((50, 3, 40, 40), 0.5)
    erased = pixels.erasing(images, operation("erasing", scale=[0.1, 0.2], ratio=[0.5, 2], value=1.0), rngs(50))
    assert torch.equal(images, torch.full_like(images, 0.5)), "in a copy"
    for image in erased:
        hit = image[0] == 1
        rows, columns = hit.any(1).sum(), hit.any(0).sum()
        assert hit.sum() == rows * columns, "a full rectangle"
        assert 0.08 < hit.float().mean() < 0.22


def test_randaugment_draws_each_image_its_own_operations() -> None:
    images, settings = 0.2 + 0.5 * noise(40), operation("randaugment", num_ops=1, magnitude=9)
    made = randaugment.randaugment(images, settings, rngs(40))
    alone = torch.cat([randaugment.randaugment(images[k : k + 1], settings, rngs(40)[k : k + 1]) for k in range(40)])
    torch.testing.assert_close(made, alone, atol=1e-5, rtol=0)
    assert made.min() >= 0
    assert made.max() <= 1
    same = [(made[k] - images[k]).abs().max() < 1e-6 for k in range(40)]
    assert 0 < sum(map(bool, same)) < 12, "the identity is one of fourteen"


@pytest.mark.parametrize(("share", "bits"), [(0.0, 8), (0.25, 7), (1.0, 4)])
def test_posterize_keeps_so_many_bits(share: float, bits: int) -> None:
    levels = torch.arange(256.0).reshape(1, 1, 16, 16) / 255
    found = randaugment._posterize(levels, torch.tensor([share])).mul(255).round().int().flatten()
    assert found.tolist() == [level >> (8 - bits) << (8 - bits) for level in range(256)]


def test_solarize_and_autocontrast() -> None:
    levels = torch.tensor([0.2, 0.4, 0.6]).reshape(1, 1, 1, 3)
    assert randaugment._solarize(levels, torch.tensor([-0.5])).flatten().tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert randaugment._autocontrast(levels, torch.tensor([1.0])).flatten().tolist() == pytest.approx([0, 0.5, 1])


def test_mixup_is_its_formula() -> None:
    own, other = noise(2)
    made, share = mixup(own, other, operation("mixup", alpha=0.4), np.random.default_rng(3))
    assert share == np.random.default_rng(3).beta(0.4, 0.4)
    torch.testing.assert_close(made, share * own + (1 - share) * other)


def test_cutmix_counts_the_area_that_is_left() -> None:
    own, other = torch.zeros(3, 16, 24), torch.ones(3, 16, 24)
    shares = []
    for seed in range(200):
        made, share = cutmix(own, other, operation("cutmix"), np.random.default_rng(seed))
        assert share == pytest.approx(1 - float(made.mean()), abs=1e-6)
        shares.append(share)
    assert min(shares) < 0.2
    assert max(shares) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_an_image_becomes_does_not_depend_on_those_beside_it(name: str) -> None:
    images = noise(5)
    function: Callable[..., torch.Tensor] = OPERATIONS[name]
    together = function(images, operation(name), rngs(5))
    assert together.shape == images.shape
    assert together.dtype == torch.float32
    for k in (0, 3):
        alone = function(images[k : k + 1], operation(name), rngs(5)[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], atol=1e-6, rtol=0)
