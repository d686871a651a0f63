"""Near-duplicate texts: MinHash over character 5-grams finds candidates, their exact Jaccard similarity decides.

MinHash is Broder's (On the resemblance and containment of documents, 1997); bands of it find pairs without comparing all
(Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3). Everything is vectorised over blocks of texts: a library
that takes one text at a time needs 60 µs for each, before any are compared.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

SHINGLE = 5
"""Characters of a shingle: long enough that unrelated short texts share few of them."""
BANDS, WIDTH = 20, 6
AGREEING = 2
"""Bands in which a pair must agree. A band of a pair of similarity s agrees with probability p = s^6, so that a pair becomes a
candidate with 1 - (1 - p)^20 - 20 p (1 - p)^19: 0.999 at s = 0.85, 0.98 at 0.8, 0.04 at 0.5, 2e-10 at 0.1. One band would let
seven times as many pairs of 0.5 through, which short texts of common words are full of."""
LONGEST = 4000
"""Characters of a text that are compared; more cost time and hardly change the answer."""
BLOCK = 1 << 17
"""Characters hashed together: half a megabyte of hashes, which stays in a core's cache."""
NEIGHBOURS = 8
"""With how many next rows of its bucket a row is compared. Groups are connected by chains, so that larger ones hold too."""
MOST_PAIRS = 5_000_000
"""Candidates after which no more are collected: as many mean that the texts are made from a template."""
PAIRS = 4096
"""Candidates verified together."""

_WORDS = re.compile(r"\w+")
_END = "\0" * (SHINGLE - 1)
_RANDOM = np.random.default_rng(1997)
_FACTORS = _RANDOM.integers(0, 1 << 32, BANDS * WIDTH, dtype=np.uint32) | np.uint32(1)
_SUMMANDS = _RANDOM.integers(0, 1 << 32, BANDS * WIDTH, dtype=np.uint32)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

Read = Callable[[np.ndarray], Iterator[Sequence[str]]]
"""The texts of the rows whose sorted indices are given, in order, some at a time."""


def fold(text: str) -> str:
    """What is compared of a text: its words in lower case, without punctuation; at least one character.

    >>> fold("Well, THIS is “good”!"), fold(":-)")
    ('well this is good', ':-)')
    """
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return (" ".join(_WORDS.findall(plain)) or text.replace("\0", "").strip() or "\1")[:LONGEST]


def near_pairs(count: int, read: Read, similarity: float) -> tuple[np.ndarray, bool]:
    """Pairs ``[pairs, 2]`` of the ``count`` texts whose similarity is at least ``similarity``; and whether all were looked at.

    Not every pair is listed, but any two near texts are joined by listed ones.
    """
    keys = band_keys(count, read)
    pairs, complete = candidates(keys)
    del keys
    return verified(pairs, count, read, similarity), complete


def band_keys(count: int, read: Read) -> np.ndarray:
    """uint32 ``[bands, count]``: equal numbers in a band make two texts candidates. 80 bytes for each text."""
    keys = np.empty((BANDS, count), dtype=np.uint32)
    done = 0
    waiting: deque[Future[np.ndarray]] = deque()

    def store() -> None:
        nonlocal done
        block = waiting.popleft().result()
        keys[:, done : done + block.shape[1]] = block
        done += block.shape[1]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # NumPy lets other threads run
        for block in _blocks(read(np.arange(count))):
            waiting.append(pool.submit(_band_keys, block))
            if len(waiting) > 16:
                store()
        while waiting:
            store()
    return keys


def _blocks(parts: Iterator[Sequence[str]]) -> Iterator[list[str]]:
    """Folded texts, about :data:`BLOCK` characters at a time."""
    block: list[str] = []
    size = 0
    for part in parts:
        for text in map(fold, part):
            block.append(text)
            size += len(text)
            if size >= BLOCK:
                yield block
                block, size = [], 0
    if block:
        yield block


def shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all shingles, uint32, and where each text's begin. The last few of a text are shorter ones.

    No text may be empty or hold a NUL.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    joined = _END.join(texts) + _END
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    windows = len(codes) - len(_END)
    mixed = np.zeros(windows, dtype=np.uint64)
    for place in range(SHINGLE):
        mixed *= _SPREAD
        mixed += codes[place : place + windows]
    mixed ^= mixed >> np.uint64(29)
    mixed *= _SPREAD
    hashed = (mixed >> np.uint64(32)).astype(np.uint32)[codes[:windows] != 0]
    return hashed, np.concatenate([[0], np.cumsum(lengths)[:-1]])


def _band_keys(texts: Sequence[str]) -> np.ndarray:
    """The keys ``[bands, texts]`` of some texts."""
    hashed, starts = shingles(texts)
    permuted = np.empty_like(hashed)
    smallest = np.empty(len(texts), dtype=np.uint32)
    keys = np.zeros((BANDS, len(texts)), dtype=np.uint32)
    for index, (factor, summand) in enumerate(zip(_FACTORS, _SUMMANDS, strict=True)):
        np.multiply(hashed, factor, out=permuted)
        permuted += summand
        np.minimum.reduceat(permuted, starts, out=smallest)
        band = keys[index // WIDTH]
        band *= np.uint32(0x85EBCA6B)
        band ^= band >> np.uint32(15)
        band += smallest
    return keys


def candidates(keys: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pairs ``[pairs, 2]`` with equal keys in :data:`AGREEING` bands, the smaller index first; and whether these are all."""
    count = np.uint64(keys.shape[1])
    found = np.zeros(0, dtype=np.uint64)
    for band in keys:
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        new = [np.zeros(0, dtype=np.uint64)]
        places = np.arange(len(band))
        for offset in range(1, NEIGHBOURS + 1):
            places = places[places < len(band) - offset]
            places = places[ordered[places] == ordered[places + offset]]
            first, second = order[places], order[places + offset]
            agree = _agreeing(keys, first, second) >= AGREEING
            first, second = first[agree].astype(np.uint64), second[agree].astype(np.uint64)
            new.append(np.minimum(first, second) * count + np.maximum(first, second))
        found = np.union1d(found, np.concatenate(new))
        if len(found) > MOST_PAIRS:
            return _unpacked(found[:MOST_PAIRS], count), False
    return _unpacked(found, count), True


def _agreeing(keys: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """In how many bands each pair of rows agrees, ``[pairs]``."""
    counts = np.zeros(len(first), dtype=np.uint8)
    for band in keys:
        counts += band[first] == band[second]
    return counts


def _unpacked(packed: np.ndarray, count: np.uint64) -> np.ndarray:
    return np.stack([packed // count, packed % count], axis=1).astype(np.int64) if len(packed) else np.zeros((0, 2), np.int64)


def verified(pairs: np.ndarray, count: int, read: Read, similarity: float) -> np.ndarray:
    """The pairs ``[pairs, 2]`` whose Jaccard similarity is at least ``similarity``; only their texts are read again."""
    if not len(pairs):
        return pairs
    needed = np.unique(pairs)
    texts = [fold(text) for part in read(needed) for text in part]
    kept = []
    for start in range(0, len(pairs), PAIRS):
        places = np.searchsorted(needed, pairs[start : start + PAIRS])
        left, right = ([texts[place] for place in side] for side in places.T.tolist())
        kept.append(jaccard(left, right) >= similarity)
    return pairs[np.concatenate(kept)]


def jaccard(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """The share of common shingles of each pair of folded texts, float64 ``[pairs]``.

    >>> jaccard(["abcdef", "abcdef"], ["abcdef", "uvwxyz"]).tolist()
    [1.0, 0.0]
    """
    one, other = _sets(left), _sets(right)
    both = np.sort(np.concatenate([one, other]))
    common = _counts(both[:-1][both[1:] == both[:-1]], len(left))
    return np.asarray(common / (_counts(one, len(left)) + _counts(other, len(left)) - common))


def _sets(texts: Sequence[str]) -> np.ndarray:
    """Each text's different shingles as ``index << 32 | hash``."""
    hashed, starts = shingles(texts)
    sizes = np.diff(np.concatenate([starts, [len(hashed)]]))
    return np.unique(np.repeat(np.arange(len(texts), dtype=np.uint64), sizes) << np.uint64(32) | hashed)


def _counts(members: np.ndarray, count: int) -> np.ndarray:
    return np.bincount((members >> np.uint64(32)).astype(np.int64), minlength=count)
