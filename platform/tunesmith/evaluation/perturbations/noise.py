"""Noise in images, with ImageNet-C's parameters (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

import numpy as np

from tunesmith.evaluation.perturbations.filters import Pixels, floats, pixels

Rng = np.random.Generator

GAUSSIAN = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Standard deviation, of values from 0 to 1."""
SHOT = (60.0, 25.0, 12.0, 5.0, 3.0)
"""Photons of a white pixel."""
IMPULSE = (0.03, 0.06, 0.09, 0.17, 0.27)
"""Share of the values that are lost."""

_FINE = 1024
"""Steps of the table of a Poisson distribution's quantiles."""


def gaussian_noise(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Noise of low light: normal, for each value."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return pixels(floats(image) + noise * np.float32(GAUSSIAN[severity - 1]))


def shot_noise(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Noise of few photons: Poisson, for each value."""
    photons = SHOT[severity - 1]
    return pixels(_quantiles(photons)[image, rng.integers(0, _FINE, image.shape, dtype=np.uint16)] * np.float32(1 / photons))


def impulse_noise(image: Pixels, severity: int, rng: Rng) -> Pixels:
    """Salt and pepper: values that are lost, half of them white and half black."""
    drawn, share = rng.random(image.shape, dtype=np.float32), IMPULSE[severity - 1]
    made = image.copy()
    made[drawn < share] = 0
    made[drawn < share / 2] = 255
    return made


def _quantiles(photons: float) -> np.ndarray:
    """Quantiles of the Poisson distribution for each of the 256 values ``[256, _FINE]``, float32."""
    if photons not in _TABLES:
        from scipy.stats import poisson

        means = np.arange(256)[:, None] / 255 * photons
        _TABLES[photons] = poisson.ppf((np.arange(_FINE)[None, :] + 0.5) / _FINE, means).astype(np.float32)
        _TABLES[photons][0] = 0  # of mean 0 there is no distribution
    return _TABLES[photons]


_TABLES: dict[float, np.ndarray] = {}
