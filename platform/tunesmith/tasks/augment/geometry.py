"""Operations that move pixels: rotation, flips, crop. Each image by its own random numbers, all in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from tunesmith.recipe.augment import Crop, HorizontalFlip, Rotation, VerticalFlip

Generators = Sequence[np.random.Generator]

ATTEMPTS = 10
"""Shapes tried for a crop before its sides are cut to the image's."""


def rotation(images: torch.Tensor, operation: Rotation, rngs: Generators) -> torch.Tensor:
    """Turned counter-clockwise by angles between minus and plus ``degrees``."""
    angles = torch.tensor([math.radians(rng.uniform(-operation.degrees, operation.degrees)) for rng in rngs])
    return affine(images, turning(angles), operation.fill)


def hflip(images: torch.Tensor, operation: HorizontalFlip, rngs: Generators) -> torch.Tensor:
    """Left to right."""
    return images.flip(-1)


def vflip(images: torch.Tensor, operation: VerticalFlip, rngs: Generators) -> torch.Tensor:
    """Top to bottom."""
    return images.flip(-2)


def crop(images: torch.Tensor, operation: Crop, rngs: Generators) -> torch.Tensor:
    """A part of each image at full size: area and shape as torchvision's ``RandomResizedCrop`` draws them."""
    parts = [_part(operation, rng) for rng in rngs]
    boxes = torch.tensor(parts, dtype=torch.float32)
    matrices = torch.zeros(len(images), 2, 3)
    matrices[:, 0, 0], matrices[:, 1, 1] = boxes[:, 2], boxes[:, 3]
    matrices[:, :, 2] = boxes[:, :2]
    return sample(images, matrices, padding="border")


def _part(operation: Crop, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Centre (x, y) of a part in [-1, 1], and its width and height as shares of the image's."""
    low, high = (math.log(value) for value in operation.ratio)
    for _ in range(ATTEMPTS):
        area, ratio = rng.uniform(operation.scale[0], operation.scale[1]), math.exp(rng.uniform(low, high))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            break
    width, height = min(width, 1.0), min(height, 1.0)
    return rng.uniform(width - 1, 1 - width), rng.uniform(height - 1, 1 - height), width, height


def turning(angles: torch.Tensor) -> torch.Tensor:
    """Matrices ``[n, 2, 3]`` from output to input, in pixels from the centre (y down), of turns counter-clockwise, radians."""
    zero, cos, sin = torch.zeros_like(angles), angles.cos(), angles.sin()
    return torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], -2)


def affine(images: torch.Tensor, matrices: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """Images seen through matrices ``[n, 2, 3]`` from output to input, in pixels from the centre; ``fill`` beyond them."""
    height, width = images.shape[-2:]
    scaled = matrices.clone()
    scaled[:, 0, 1] *= height / width
    scaled[:, 1, 0] *= width / height
    scaled[:, 0, 2] *= 2 / width
    scaled[:, 1, 2] *= 2 / height
    return sample(images - fill, scaled) + fill if fill else sample(images, scaled)


def sample(images: torch.Tensor, matrices: torch.Tensor, padding: str = "zeros") -> torch.Tensor:
    """Bilinear sampling; ``matrices`` in the units of :func:`torch.nn.functional.affine_grid`, pixels being areas."""
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
