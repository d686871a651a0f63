"""Perceptual hashes are the signs of low frequencies; all pairs within a distance are found; look-alikes are verified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.care import pictures

pytestmark = pytest.mark.unit


def photos(count: int, seed: int = 0, side: int = 48) -> list[np.ndarray]:
    """Images of a few soft spots."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    made = []
    for _ in range(count):
        image = np.zeros((side, side))
        for _ in range(5):
            cy, cx, width = *rng.uniform(0, side, 2).tolist(), float(rng.uniform(3, 12))
            image += rng.uniform(40, 200) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
        made.append(image.clip(0, 255).astype(np.uint8))
    return made


def near(images: list[Any], distance: int = 6) -> set[tuple[int, int]]:
    def read(wanted: np.ndarray) -> Iterator[list[Any]]:
        for start in range(0, len(wanted), 5):
            yield [images[k] for k in wanted[start : start + 5]]

    return {(int(a), int(b)) for a, b in pictures.near_pairs(len(images), read, distance)}


def test_the_hash_is_the_sign_of_the_low_frequencies_against_their_median() -> None:
    image = np.stack([pictures.thumbnail(one) for one in photos(3)])
    n = np.arange(32)
    for one, found in zip(image, pictures.perceptual_hashes(image), strict=True):
        values = [
            round((one * np.cos(np.pi / 32 * (n + 0.5) * u)[:, None] * np.cos(np.pi / 32 * (n + 0.5) * v)[None, :]).sum())
            for u in range(8)
            for v in range(8)
        ]
        bits = "".join("1" if value > np.median(values[1:]) else "0" for value in values)
        assert int(found) == int(bits, 2)


def test_darker_noisy_and_larger_copies_are_near_and_other_images_are_not() -> None:
    from PIL import Image

    images: list[Any] = list(photos(40))
    rng = np.random.default_rng(1)
    images.append((images[0] * 0.6).astype(np.uint8))
    images.append((images[1] + rng.normal(0, 5, images[1].shape)).clip(0, 255).astype(np.uint8))
    images.append(Image.fromarray(images[2]).resize((96, 96), Image.Resampling.BICUBIC))
    assert near(images) == {(0, 40), (1, 41), (2, 42)}


def test_the_same_hash_is_not_enough() -> None:
    rng = np.random.default_rng(0)
    plain = np.full((32, 32), 90, np.uint8)
    images = [plain, plain + np.uint8(40), rng.integers(0, 255, (32, 32), dtype=np.uint8), 255 - plain]
    assert near(images) == {(0, 1), (0, 3)}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 60), distance=st.integers(0, 10))
def test_every_pair_within_the_distance_is_a_candidate(seed: int, count: int, distance: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 63, 5, dtype=np.uint64)[rng.integers(0, 5, count)]
    for _ in range(4):
        hashes ^= np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
    found = {(int(a), int(b)) for a, b in pictures.candidates(hashes, distance)}
    first = {int(value): index for index, value in reversed(list(enumerate(hashes)))}
    for a in range(count):
        for b in range(a):
            if int(hashes[a] ^ hashes[b]).bit_count() <= distance:
                one, other = first[int(hashes[a])], first[int(hashes[b])]
                assert one == other or (min(one, other), max(one, other)) in found
                assert a == first[int(hashes[a])] or (first[int(hashes[a])], a) in found
    assert all(int(hashes[a] ^ hashes[b]).bit_count() <= distance for a, b in found)


def test_correlation_of_plain_and_of_scaled_images() -> None:
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 255, (1, 100)).astype(np.float32)
    plain = np.full((1, 100), 7.0, np.float32)
    found = [
        pictures.correlations(a, b)[0] for a, b in ((one, one * 0.5 + 9), (one, 255 - one), (plain, plain * 3), (one, plain))
    ]
    assert found == pytest.approx([1, -1, 1, 0], abs=1e-4)
