"""What cameras, screens and files do to images, with ImageNet-C's parameters (arXiv:1903.12261) scaled to the image's size."""

from __future__ import annotations

import io

import numpy as np

from tunesmith.evaluation.perturbations.filters import Pixels, blurred, floats, pixels, sampled

Rng = np.random.Generator

CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
"""Share of each value's distance from the mean that is left."""
ELASTIC = ((0.0019, 0.7, 0.1), (0.0167, 0.08, 0.2), (0.0033, 0.01, 0.02), (0.0047, 0.01, 0.02), (0.008, 0.01, 0.02))
"""Standard deviation of the local shifts, their smoothness, and strength of the shear, as shares of the shorter side. There the
shifts are alpha times uniform noise blurred by sigma, of 244 pixels, thus of deviation alpha / (sqrt(12 pi) sigma) pixels."""
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
"""Share of the side that is left."""
JPEG = (25, 18, 15, 10, 7)
"""Quality."""


def contrast(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Less contrast: every value nearer to its channel's mean."""
    given = floats(image)
    mean = given.mean((0, 1), keepdims=True)
    return pixels((given - mean) * np.float32(CONTRAST[severity - 1]) + mean)


def elastic_transform(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Stretched and sheared (Simard et al. 2003): three corners move, and every pixel by a smooth random shift."""
    height, width = image.shape[:2]
    side = min(height, width)
    spread, smooth, shear = (share * side for share in ELASTIC[severity - 1])
    corners = np.array([[1, 1, 1], [1, -1, 1], [-1, -1, 1]]) * [side / 3, side / 3, 1]
    moved = corners[:, :2] + rng.uniform(-shear, shear, (3, 2))
    affine = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners[:, :2]).astype(np.float32)
    shift = blurred(rng.standard_normal((height, width, 2), dtype=np.float32), smooth) * np.float32(spread / _left(smooth))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - np.float32(height / 2) + shift[:, :, 0], x - np.float32(width / 2) + shift[:, :, 1]
    rows = affine[0, 0] * y + affine[1, 0] * x + affine[2, 0] + np.float32(height / 2)
    columns = affine[0, 1] * y + affine[1, 1] * x + affine[2, 1] + np.float32(width / 2)
    return pixels(sampled(floats(image), rows, columns))


def _left(sigma: float) -> float:
    """The standard deviation of white noise of deviation 1 after a Gaussian blur."""
    line = np.exp(-0.5 * (np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2) / max(sigma, 0.05)) ** 2)
    return float(np.square(line / line.sum()).sum())


def pixelate(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Fewer, larger pixels."""
    from PIL import Image as images

    height, width = image.shape[:2]
    share = PIXELATE[severity - 1]
    small = images.fromarray(image).resize((max(int(width * share), 1), max(int(height * share), 1)), images.Resampling.BOX)
    return np.asarray(small.resize((width, height), images.Resampling.NEAREST))


def jpeg_compression(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """A file of few bytes."""
    from PIL import Image as images

    stream = io.BytesIO()
    images.fromarray(image).save(stream, "JPEG", quality=JPEG[severity - 1])
    return np.asarray(images.open(stream))
