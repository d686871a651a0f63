"""Weather in images, with ImageNet-C's parameters (arXiv:1903.12261) scaled to the image's size.

Its frost is made of six photographs, which are not ours to ship: here it is a seeded texture of ice, ridged noise on a cloud.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tunesmith.evaluation.perturbations.filters import (
    Pixels,
    Plane,
    blurred,
    convolved,
    floats,
    pixels,
    plasma,
    scale,
    streak,
)

Rng = np.random.Generator

SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
)
"""Mean and deviation of the flakes, their size, the value above which there is one, radius and deviation of their streaks, and
the share of the image that is not whitened."""
FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Shares of the image and of the ice."""
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""How thick it is, and how smooth its cloud."""
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Added to the value of hue, saturation and value."""

_ICE = 640
"""Side of a texture of ice, of which each image takes a part."""
_TEXTURES = 6


def snow(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Flakes that fall, and a whitened picture behind them."""
    loc, spread, size, threshold, radius, sigma, kept = SNOW[severity - 1]
    height, width = image.shape[:2]
    grown = max(size * scale(image), 1.0)
    rows, columns = (int(np.ceil(side / grown)) + 1 for side in (height, width))
    flakes = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(spread) + np.float32(loc)
    layer = _enlarged(flakes, height, width)
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1).astype(np.float32)
    size_ = scale(image)
    layer = convolved(layer, streak(radius * size_, sigma * size_, float(rng.uniform(-135, -45))))[:, :, None]
    given = floats(image)
    grey = (given @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[:, :, None]
    whitened = np.float32(kept) * given + np.float32(1 - kept) * np.maximum(given, grey * np.float32(1.5) + np.float32(0.5))
    return pixels(whitened + layer + layer[::-1, ::-1])


def frost(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Ice on the lens."""
    own, ice = FROST[severity - 1]
    height, width = image.shape[:2]
    texture = _ice(int(rng.integers(_TEXTURES)))
    top, left = (int(rng.integers(max(_ICE - side, 0) + 1)) for side in (height, width))
    cover = texture[top : top + height, left : left + width]
    if cover.shape[:2] != (height, width):  # an image larger than the texture
        cover = np.stack([_enlarged(texture[:, :, k], height, width) for k in range(3)], axis=2)
    return pixels(np.float32(own) * floats(image) + np.float32(ice) * cover)


def fog(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """A cloud before the picture."""
    thick, decay = FOG[severity - 1]
    given = floats(image)
    most = float(given.max())
    cloud = plasma(image.shape[0], image.shape[1], decay, rng)[:, :, None]
    return pixels((given + np.float32(thick) * cloud) * np.float32(most / (most + thick) if most else 1.0))


def brightness(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """More light: the value of each pixel is raised, its hue and saturation stay."""
    given = floats(image)
    value = given.max(2, keepdims=True)
    raised = np.minimum(value + np.float32(BRIGHTNESS[severity - 1]), 1)
    return pixels(np.where(value > 0, given * (raised / np.maximum(value, np.float32(1e-6))), raised))


@cache
def _ice(which: int) -> np.ndarray:
    """A texture of ice ``[_ICE, _ICE, 3]`` float32: bluish, with crystals of several sizes along ridges."""
    rng = np.random.default_rng(9000 + which)
    cloud = plasma(_ICE, _ICE, 1.6, rng)
    ridges = np.zeros((_ICE, _ICE), dtype=np.float32)
    for size, share in ((24.0, 0.5), (8.0, 0.3), (2.5, 0.2)):
        noise = blurred(rng.standard_normal((_ICE, _ICE), dtype=np.float32), size)
        ridges += np.float32(share) * (1 - np.minimum(np.abs(noise) / (noise.std() + 1e-6), 1)) ** 3
    ice = np.clip(0.25 + 0.45 * cloud + 0.6 * ridges, 0, 1)
    return np.asarray(ice[:, :, None] * np.array([0.86, 0.95, 1.0]), dtype=np.float32)


def _enlarged(plane: Plane, height: int, width: int) -> Plane:
    from PIL import Image as images

    return np.asarray(images.fromarray(plane).resize((width, height), images.Resampling.BILINEAR))
