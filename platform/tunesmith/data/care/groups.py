"""Rows that belong together, as an array of codes: equal codes, one group. Pure functions."""

from __future__ import annotations

import numpy as np


def codes_of(keys: np.ndarray) -> np.ndarray:
    """Codes from 0 for any keys ``[n]``; equal keys have the same code."""
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """Codes ``[count]`` of the groups into which pairs ``[pairs, 2]`` join the rows, directly or by a chain.

    Each row takes the smallest label among its neighbours until nothing changes; labels are followed to their own labels on
    the way, so that long chains take few rounds.

    >>> joined(5, np.array([[0, 3], [3, 4]])).tolist()
    [0, 1, 2, 0, 0]
    """
    labels = np.arange(count)
    first, second = pairs[:, 0], pairs[:, 1]
    while True:
        smallest = np.minimum(labels[first], labels[second])
        new = labels.copy()
        for ends in (first, second, labels[first], labels[second]):
            np.minimum.at(new, ends, smallest)
        new = new[new]
        if np.array_equal(new, labels):
            return codes_of(labels)
        labels = new


def merged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Codes of the groups in which rows are joined that share a code ``[n]`` of either kind.

    >>> merged(np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])).tolist()
    [0, 0, 0, 1]
    """
    rows = np.arange(len(one))
    firsts = [np.unique(codes, return_index=True)[1][codes_of(codes)] for codes in (one, other)]
    return joined(len(one), np.concatenate([np.stack([rows, first], axis=1) for first in firsts]))


def sizes(codes: np.ndarray) -> np.ndarray:
    """How many rows each row's group has, ``[n]``."""
    return np.asarray(np.bincount(codes)[codes]) if len(codes) else codes


def repeated(codes: np.ndarray) -> np.ndarray:
    """Whether an earlier row has the same code, ``[n]``."""
    mask = np.ones(len(codes), dtype=bool)
    mask[np.unique(codes, return_index=True)[1]] = False
    return mask


def pair_codes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Codes of rows that are equal in both."""
    return codes_of(codes_of(one).astype(np.int64) * (len(other) + 1) + codes_of(other))
