"""Damage inside words, which leaves their number as it is: what tagged sentences can bear, and texts too.

The kinds are those of CheckList (Ribeiro et al. 2020, arXiv:2005.04118) and HELM (Liang et al. 2022, arXiv:2211.09110).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tunesmith.tasks.augment.words import neighbours

Rng = np.random.Generator
Change = Callable[[Sequence[str], int, Rng], list[str]]
"""Words, severity, random numbers → as many words."""

SHARES = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Share of the words (or gaps) that are hit, by severity; at least one is."""

LOOKALIKES = dict(zip("aceopxyijsABCEHIKMOPTXY", "асеорхуіјѕАВСЕНІКМОРТХУ", strict=True))
"""Latin letters and the Cyrillic ones that look the same (Unicode's confusables.txt)."""


def typos(words: Sequence[str], severity: int, rng: Rng) -> list[str]:
    """A letter left out, doubled, or swapped with the next."""
    return _hit(words, severity, rng, _mistyped, lambda word: len(word) > 1)


def keyboard(words: Sequence[str], severity: int, rng: Rng) -> list[str]:
    """A letter's neighbour on a QWERTY keyboard in its place."""
    return _hit(words, severity, rng, _beside, lambda word: any(map(neighbours, word)))


def case(words: Sequence[str], severity: int, rng: Rng) -> list[str]:
    """A word in capitals, or with small and capital letters changed about."""
    return _hit(words, severity, rng, _recased, lambda word: word.upper() != word.lower())


def lookalikes(words: Sequence[str], severity: int, rng: Rng) -> list[str]:
    """Every letter of a word that has a Cyrillic double is it."""
    double = lambda word, rng: "".join(LOOKALIKES.get(letter, letter) for letter in word)  # noqa: E731
    return _hit(words, severity, rng, double, lambda word: any(letter in LOOKALIKES for letter in word))


def chosen(places: Sequence[int], severity: int, rng: Rng) -> list[int]:
    """Which of the places are hit: the severity's share of them, one at the least, in order."""
    if not places:
        return []
    count = max(1, round(SHARES[severity - 1] * len(places)))
    return sorted(int(places[k]) for k in rng.permutation(len(places))[:count])


def _hit(
    words: Sequence[str], severity: int, rng: Rng, change: Callable[[str, Rng], str], fits: Callable[[str], bool]
) -> list[str]:
    changed = list(words)
    for place in chosen([k for k, word in enumerate(words) if fits(word)], severity, rng):
        changed[place] = change(changed[place], rng)
    return changed


def _mistyped(word: str, rng: Rng) -> str:
    at, way = int(rng.integers(len(word) - 1)), int(rng.integers(3))
    middle = ("", word[at] * 2, word[at + 1] + word[at])[way]
    return word[:at] + middle + word[at + (2 if way == 2 else 1) :]


def _beside(word: str, rng: Rng) -> str:
    places = [k for k, letter in enumerate(word) if neighbours(letter)]
    at = places[int(rng.integers(len(places)))]
    near = neighbours(word[at])
    return word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]


def _recased(word: str, rng: Rng) -> str:
    made = word.upper() if rng.random() < 0.5 else word.swapcase()
    return made if made != word else word.swapcase()
