"""Operations that change the values of pixels in place: colour, noise, blur, erasing. Colour and filters are kornia's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from tunesmith.recipe.augment import Blur, ColorJitter, Erasing, Noise

Generators = Sequence[np.random.Generator]


def color_jitter(images: torch.Tensor, operation: ColorJitter, rngs: Generators) -> torch.Tensor:
    """Brightness, contrast, saturation and hue, in this order, as torchvision's ``ColorJitter`` defines each of them."""
    from kornia import enhance

    steps = (
        (operation.brightness, enhance.adjust_brightness_accumulative),
        (operation.contrast, enhance.adjust_contrast_with_mean_subtraction),
        (operation.saturation, enhance.adjust_saturation_with_gray_subtraction),
    )
    for width, adjust in steps:
        if width:
            images = adjust(images, _uniform(rngs, 1 - width, 1 + width))
    if operation.hue:
        turn = 2 * math.pi * operation.hue
        images = enhance.adjust_hue(images, _uniform(rngs, -turn, turn)).clamp_(0, 1)
    return images


def noise(images: torch.Tensor, operation: Noise, rngs: Generators) -> torch.Tensor:
    """Gaussian noise of the standard deviation ``std``, cut at black and white."""
    shape = tuple(images.shape[1:])
    drawn = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])
    return torch.from_numpy(drawn).mul_(operation.std).add_(images).clamp_(0, 1)


def blur(images: torch.Tensor, operation: Blur, rngs: Generators) -> torch.Tensor:
    """A Gaussian of the drawn standard deviation, cut off at three of the widest."""
    from kornia.filters import gaussian_blur2d

    sigmas = _uniform(rngs, *operation.sigma).clamp_(min=1e-3)
    reach = min(math.ceil(3 * operation.sigma[1]), min(images.shape[-2:]) - 1)
    return gaussian_blur2d(images, 2 * max(reach, 1) + 1, torch.stack([sigmas, sigmas], -1))


def erasing(images: torch.Tensor, operation: Erasing, rngs: Generators) -> torch.Tensor:
    """A rectangle of ``value``; area and shape are drawn as in algorithm 1 of the paper, sides cut to the image's."""
    height, width = images.shape[-2:]
    low, high = (math.log(value) for value in operation.ratio)
    erased = images.clone()
    for image, rng in zip(erased, rngs, strict=True):
        area, ratio = height * width * rng.uniform(operation.scale[0], operation.scale[1]), math.exp(rng.uniform(low, high))
        tall, wide = min(round(math.sqrt(area * ratio)), height), min(round(math.sqrt(area / ratio)), width)
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        image[:, top : top + tall, left : left + wide] = operation.value
    return erased


def _uniform(rngs: Generators, low: float, high: float) -> torch.Tensor:
    """One number for each, float32 ``[n]``."""
    return torch.tensor([rng.uniform(low, high) for rng in rngs], dtype=torch.float32)
