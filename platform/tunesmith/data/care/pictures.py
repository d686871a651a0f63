"""Near-duplicate images: a perceptual hash of 64 bits finds candidates, the correlation of their thumbnails decides.

The hash is pHash (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010): the signs of the lowest
frequencies of the discrete cosine transform against their median. Two hashes within d bits agree in one of d + 1 bands, so
that no pair is missed and few are compared.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tunesmith.tasks.images import open_image

SIDE = 32
"""Height and width of a thumbnail in pixels."""
LOW = 8
"""Frequencies each way: 64 in all."""
CORRELATION = 0.99
"""Least correlation of the grey values of two thumbnails of near duplicates; it is 1 where only brightness and contrast
differ. Measured on scikit-learn's digits, within 6 bits: darkened, noisy and recompressed copies have 0.997 and more; 95 pairs
of different digits reach 0.95, 9 reach 0.98, none reaches 0.99."""
PAIRS = 1024
"""Candidates verified together."""

Read = Callable[[np.ndarray], Iterator[Sequence[Any]]]
"""The images of the rows whose sorted indices are given, in order, some at a time."""


def near_pairs(count: int, read: Read, distance: int, correlation: float = CORRELATION) -> np.ndarray:
    """Pairs ``[pairs, 2]`` of the ``count`` images whose hashes differ in at most ``distance`` bits and that look alike."""
    hashes = np.concatenate([np.zeros(0, np.uint64), *(perceptual_hashes(one) for one in thumbnails(read, np.arange(count)))])
    return verified(candidates(hashes, distance), read, correlation)


def thumbnail(value: Any) -> np.ndarray:
    """Grey values of an image shrunk to ``[SIDE, SIDE]``, float32 from 0 to 255."""
    from PIL import Image

    return np.asarray(open_image(value).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)


def thumbnails(read: Read, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Thumbnails ``[some, SIDE, SIDE]`` of the rows, decoded on threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for part in read(rows):
            yield np.stack(list(pool.map(thumbnail, part)))


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """uint64 ``[n]`` of thumbnails ``[n, SIDE, SIDE]``."""
    steps = np.arange(SIDE)
    cosines = np.cos(np.pi / SIDE * (steps + 0.5) * np.arange(LOW)[:, None]).astype(np.float32)
    low = np.einsum("ui,nij,vj->nuv", cosines, images, cosines, optimize=True).reshape(len(images), LOW * LOW)
    low = np.round(low)  # so that rounding errors do not tell one plain image from another
    middle = np.median(low[:, 1:], axis=1, keepdims=True)  # the first is the mean brightness
    bits = low > middle
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def candidates(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Pairs ``[pairs, 2]`` of rows whose hashes ``[n]`` differ in at most ``distance`` bits.

    Rows of equal hashes are joined with the first of them only.
    """
    values, first, codes = np.unique(hashes, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[codes] != np.arange(len(hashes)))
    found = [np.stack([first[codes[repeated]], repeated], axis=1)]
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in itertools.pairwise(edges.tolist()):
        if high - low == 64:  # distance 0: only equal ones
            break
        keys = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], values[order]
        places, offset = np.arange(len(keys)), 0
        while len(places):
            offset += 1
            places = places[places < len(keys) - offset]
            places = places[keys[places] == keys[places + offset]]
            near = places[np.bitwise_count(ordered[places] ^ ordered[places + offset]) <= distance]
            found.append(np.stack([first[order[near]], first[order[near + offset]]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0).astype(np.int64)


def verified(pairs: np.ndarray, read: Read, correlation: float) -> np.ndarray:
    """The pairs whose thumbnails correlate; only these images are read again."""
    kept = []
    for start in range(0, len(pairs), PAIRS):
        some = pairs[start : start + PAIRS]
        needed = np.unique(some)
        images = np.concatenate(list(thumbnails(read, needed))).reshape(len(needed), -1)
        left, right = (images[np.searchsorted(needed, side)] for side in some.T)
        kept.append(correlations(left, right) >= correlation)
    return pairs[np.concatenate(kept)] if kept else pairs


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of rows, ``[n]``; 1 where both are plain, 0 where one is."""
    left, right = (side - side.mean(axis=1, keepdims=True) for side in (left, right))
    spread = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    plain = (np.abs(left).max(axis=1) < 1) & (np.abs(right).max(axis=1) < 1)  # less than one grey level of 256
    return np.where(plain, 1.0, (left * right).sum(axis=1) / np.maximum(spread, 1e-6))
