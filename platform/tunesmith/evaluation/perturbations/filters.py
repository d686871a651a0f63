"""What several kinds of damage to images are made of: kernels, sampling, clouds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

Image = npt.NDArray[np.float32]
"""``[height, width, 3]`` from 0 to 1."""
Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
"""``[height, width]``."""

SIDE = 224
"""The shorter side for which ImageNet-C's parameters were chosen; lengths are scaled from it to an image's own."""


def scale(image: npt.NDArray[Any]) -> float:
    """By how much lengths in pixels are scaled for this image."""
    return float(min(image.shape[:2])) / SIDE


def floats(image: Pixels) -> Image:
    """Pixels from 0 to 1."""
    return image.astype(np.float32) * np.float32(1 / 255)


def pixels(image: npt.NDArray[np.floating[Any]]) -> Pixels:
    """Values from 0 to 1 as bytes; those outside are cut off."""
    found: Pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return found


def convolved(image: npt.NDArray[np.float32], kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """An image or plane convolved with a kernel of odd sides, mirrored at its edges; by Fourier transform."""
    planes = image if image.ndim == 3 else image[:, :, None]
    y, x = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(planes.transpose(2, 0, 1), ((0, 0), (y, y), (x, x)), mode="symmetric")
    shape = [scipy.fft.next_fast_len(side, real=True) for side in padded.shape[1:]]
    spectrum = scipy.fft.rfft2(padded, shape) * scipy.fft.rfft2(kernel, shape)
    full = scipy.fft.irfft2(spectrum, shape)[:, 2 * y : 2 * y + planes.shape[0], 2 * x : 2 * x + planes.shape[1]]
    found = np.ascontiguousarray(full.transpose(1, 2, 0), dtype=np.float32)
    return found if image.ndim == 3 else found[:, :, 0]


def blurred(image: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Gaussian blur of the first two axes; ``sigma`` in pixels. Long kernels go by Fourier transform."""
    if sigma < 0.05:
        return image
    if sigma < 6:
        axes = (0, 1)
        found = scipy.ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=3.0, axes=axes)
        return np.asarray(found, dtype=np.float32)
    radius = min(int(3 * sigma + 0.5), *image.shape[:2])
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    line /= line.sum()
    return convolved(image, np.outer(line, line))


@lru_cache(maxsize=64)
def disk(radius: float, soften: float) -> npt.NDArray[np.float32]:
    """The kernel of a lens out of focus, with an edge softened by ``soften`` pixels; sums to 1."""
    reach, fine = int(np.ceil(radius + 2 * soften)) or 1, 4
    places = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = (places[:, None] ** 2 + places[None, :] ** 2 <= max(radius, 0.3) ** 2).astype(np.float32)
    whole = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean((1, 3))
    kernel = blurred(whole, soften)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def streak(radius: float, sigma: float, degrees: float) -> npt.NDArray[np.float32]:
    """The kernel of a motion: half a Gaussian along a line from its middle, ``radius`` pixels long; sums to 1."""
    reach = max(int(np.ceil(radius)), 1)
    steps = np.linspace(0, radius, 8 * reach)
    weights = np.exp(-0.5 * (steps / max(sigma, 0.1)) ** 2)
    way = np.deg2rad(degrees)
    y, x = reach + steps * np.sin(way), reach + steps * np.cos(way)
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - y % 1) * np.abs(1 - dx - x % 1)
            np.add.at(kernel, (y.astype(int) + dy, x.astype(int) + dx), weights * share)
    kernel = kernel[: 2 * reach + 1, : 2 * reach + 1]
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def sampled(image: Image, y: Plane, x: Plane) -> Image:
    """The image at these places in pixels, between pixels bilinearly, mirrored outside."""
    height, width = image.shape[:2]
    y, x = _mirrored(y, height), _mirrored(x, width)
    top, left = np.minimum(y.astype(np.int32), max(height - 2, 0)), np.minimum(x.astype(np.int32), max(width - 2, 0))
    down, right = (y - top)[:, :, None], (x - left)[:, :, None]
    flat, at = image.reshape(-1, image.shape[2]), top * width + left
    below, beside = (width if height > 1 else 0), (1 if width > 1 else 0)
    upper = flat[at] + (flat[at + beside] - flat[at]) * right
    lower = flat[at + below] + (flat[at + below + beside] - flat[at + below]) * right
    return np.asarray(upper + (lower - upper) * down, dtype=np.float32)


def _mirrored(places: Plane, side: int) -> Plane:
    last = max(side - 1, 1)
    folded = np.abs(places) % (2 * last)
    return np.asarray(np.where(folded > last, 2 * last - folded, folded), dtype=np.float32)


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> Plane:
    """A cloud from 0 to 1 by the diamond-square algorithm, of which each halving of the step divides the height by ``decay``.

    As in ImageNet-C (``plasma_fractal``), on a torus of the next power of two.
    """
    side = 1 << max(int(np.ceil(np.log2(max(height, width, 2)))), 1)
    cloud = np.zeros((side, side), dtype=np.float32)
    step, wibble = side, 100.0
    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        cloud[half::step, half::step] = (pairs + np.roll(pairs, -1, 1)) / 4 + _wibbled(corners.shape, wibble, rng)
        centres = cloud[half::step, half::step]
        rows, columns = centres + np.roll(centres, 1, 0), corners + np.roll(corners, -1, 1)
        cloud[::step, half::step] = (rows + columns) / 4 + _wibbled(corners.shape, wibble, rng)
        rows, columns = centres + np.roll(centres, 1, 1), corners + np.roll(corners, -1, 0)
        cloud[half::step, ::step] = (rows + columns) / 4 + _wibbled(corners.shape, wibble, rng)
        step, wibble = half, wibble / decay
    cloud -= cloud.min()
    return cloud[:height, :width] / max(float(cloud.max()), 1e-6)


def _wibbled(shape: tuple[int, ...], wibble: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return (rng.random(shape, dtype=np.float32) * 2 - 1) * np.float32(wibble)
