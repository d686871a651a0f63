"""Blur of images, with ImageNet-C's parameters (arXiv:1903.12261) scaled to the image's size."""

from __future__ import annotations

import numpy as np

from tunesmith.evaluation.perturbations.filters import Pixels, blurred, convolved, disk, floats, pixels, scale, streak

Rng = np.random.Generator

DEFOCUS = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))
"""Radius of the disk, softness of its edge, in pixels of an image of 224."""
GLASS = ((0.7, 1.0, 2), (0.9, 2.0, 1), (1.0, 2.0, 3), (1.1, 3.0, 2), (1.5, 4.0, 2))
"""Standard deviation of the blur, most pixels that a pixel moves, how often."""
MOTION = ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0))
"""Radius of the streak and its standard deviation."""
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.33, 0.03))
"""Where the enlargements end, and their step."""


def defocus_blur(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """A lens out of focus."""
    radius, soften = DEFOCUS[severity - 1]
    size = scale(image)
    return pixels(convolved(floats(image), disk(radius * size, soften * size)))


def glass_blur(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Frosted glass: each pixel takes the value of one nearby, where ImageNet-C swaps one pair after the other."""
    sigma, reach, times = GLASS[severity - 1]
    size = scale(image)
    made = blurred(floats(image), sigma * size)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(times):
        # From -reach to reach - 1 for 224 pixels, as there; a small image's pixels move by less than one, thus seldom.
        moved = (rng.random((2, height, width), dtype=np.float32) * 2 - 1) * np.float32(max(reach * size, 0.6))
        rows = np.clip(np.rint(y + moved[0]), 0, height - 1).astype(np.int32)
        made = made.reshape(-1, 3)[rows * width + np.clip(np.rint(x + moved[1]), 0, width - 1).astype(np.int32)]
    return pixels(blurred(made, sigma * size))


def motion_blur(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """A camera that moves, at a random angle up to 45 degrees from the horizontal."""
    radius, sigma = MOTION[severity - 1]
    size = scale(image)
    return pixels(convolved(floats(image), streak(radius * size, sigma * size, float(rng.uniform(-45, 45)))))


def zoom_blur(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """A camera that moves towards what it sees: the mean of the image and its enlargements."""
    from PIL import Image as images

    end, step = ZOOM[severity - 1]
    factors = np.arange(1, end, step)
    whole, (height, width) = images.fromarray(image), image.shape[:2]
    total = image.astype(np.float32)
    for factor in factors:
        x, y = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
        nearer = whole.resize((width, height), images.Resampling.BILINEAR, (x, y, width - x, height - y))
        total += np.asarray(nearer, dtype=np.float32)
    return pixels(total / np.float32(255 * (len(factors) + 1)))
