"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719), drawn for each image; kornia's own draws once for a whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tunesmith.tasks.augment.geometry import affine, turning

if TYPE_CHECKING:
    from tunesmith.recipe.augment import RandAugment

STRONGEST = 30
"""The highest magnitude of the paper's scale."""

Strength = torch.Tensor
"""float32 ``[n]``: magnitude over :data:`STRONGEST`, with a drawn sign."""


def randaugment(images: torch.Tensor, operation: RandAugment, rngs: Sequence[np.random.Generator]) -> torch.Tensor:
    """``num_ops`` operations one after another on each image, drawn with replacement as in the paper."""
    share = operation.magnitude / STRONGEST
    for _ in range(operation.num_ops):
        drawn = [int(rng.integers(len(OPERATIONS))) for rng in rngs]
        signs = [float(rng.choice((-1.0, 1.0))) for rng in rngs]
        result = images.clone()
        for kind in sorted(set(drawn)):
            rows = [row for row, one in enumerate(drawn) if one == kind]
            strength = torch.tensor([share * signs[row] for row in rows], dtype=torch.float32)
            result[rows] = OPERATIONS[kind](images[rows], strength)
        images = result.clamp_(0, 1)
    return images


def _identity(images: torch.Tensor, strength: Strength) -> torch.Tensor:
    return images


def _rotate(images: torch.Tensor, strength: Strength) -> torch.Tensor:
    return affine(images, turning(strength * math.radians(30)))


def _moved(place: tuple[int, int], most: float) -> Callable[[torch.Tensor, Strength], torch.Tensor]:
    """A shear or a translation: one entry of the matrix, at most ``most`` (a translation as a share of the image)."""

    def move(images: torch.Tensor, strength: Strength) -> torch.Tensor:
        row, column = place
        size = (images.shape[-1], images.shape[-2])[row] if column == 2 else 1
        matrices = torch.eye(2, 3).repeat(len(images), 1, 1)
        matrices[:, row, column] = strength * most * size
        return affine(images, matrices)

    return move


def _enhanced(name: str) -> Callable[[torch.Tensor, Strength], torch.Tensor]:
    """A factor around 1, by at most 0.9, of one of kornia's functions."""

    def enhance(images: torch.Tensor, strength: Strength) -> torch.Tensor:
        from kornia import enhance as functions

        enhanced: torch.Tensor = getattr(functions, name)(images, 1 + 0.9 * strength)
        return enhanced

    return enhance


def _posterize(images: torch.Tensor, strength: Strength) -> torch.Tensor:
    """From 8 bits down to 4."""
    step = 2.0 ** (4 * strength.abs()).round()[:, None, None, None]
    return (images * 255).round_().div_(step).floor_().mul_(step).div_(255)


def _solarize(images: torch.Tensor, strength: Strength) -> torch.Tensor:
    """Inverted from a threshold on, which falls from white to black."""
    return torch.where(images >= (1 - strength.abs())[:, None, None, None], 1 - images, images)


def _autocontrast(images: torch.Tensor, strength: Strength) -> torch.Tensor:
    """Each channel stretched from black to white."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _equalize(images: torch.Tensor, strength: Strength) -> torch.Tensor:
    """A flat histogram for each channel."""
    from kornia.enhance import equalize

    return equalize(images.clamp(0, 1))


OPERATIONS: tuple[Callable[[torch.Tensor, Strength], torch.Tensor], ...] = (
    _identity,
    _rotate,
    _moved((0, 1), 0.3),
    _moved((1, 0), 0.3),
    _moved((0, 2), 150 / 331),
    _moved((1, 2), 150 / 331),
    _enhanced("adjust_brightness_accumulative"),
    _enhanced("adjust_saturation_with_gray_subtraction"),
    _enhanced("adjust_contrast_with_mean_subtraction"),
    _enhanced("sharpness"),
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
"""The paper's fourteen, with the ranges of torchvision's ``RandAugment`` (its translations are for 331 pixels)."""
