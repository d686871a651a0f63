"""Operations on words: left out, swapped, mistyped, replaced. Each word keeps the place that it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunesmith.recipe.augment import AnyOperation, MaskedLM

Words = list[tuple[str, int]]
"""Words, each with its place in the original."""

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The letters of a QWERTY keyboard; neighbours stand beside each other in a row."""


def change_words(words: Sequence[str], operations: Sequence[AnyOperation], rng: np.random.Generator) -> Words:
    """The words after all operations, in order, each of them by its chance."""
    return change_all([words], operations, [rng])[0]


def change_all(
    texts: Sequence[Sequence[str]], operations: Sequence[AnyOperation], rngs: Sequence[np.random.Generator]
) -> list[Words]:
    """The words of several texts, each changed by its own random numbers; a model that takes part sees them together."""
    changed: list[Words] = [[(word, place) for place, word in enumerate(words)] for words in texts]
    for operation in operations:
        drawn = [index for index, rng in enumerate(rngs) if rng.random() < operation.p]
        if isinstance(operation, MaskedLM):
            from tunesmith.tasks.augment.masked_lm import load

            model = load(operation.model_name_or_path, operation.revision)
            new = model.substituted([changed[index] for index in drawn], operation, [rngs[index] for index in drawn])
        else:
            new = [OPERATIONS[operation.name](changed[index], operation, rngs[index]) for index in drawn]
        for index, words in zip(drawn, new, strict=True):
            changed[index] = words
    return changed


def change_text(text: str, operations: Sequence[AnyOperation], rng: np.random.Generator) -> str:
    r"""A text after all operations; words are what stands between white space, and keep that before them.

    >>> change_text("two  words\nhere", [], np.random.default_rng(0))
    'two  words\nhere'
    """
    return change_texts([text], operations, [rng])[0]


def change_texts(texts: Sequence[str], operations: Sequence[AnyOperation], rngs: Sequence[np.random.Generator]) -> list[str]:
    """Several texts as :func:`change_text` changes each."""
    split = [text.split() for text in texts]
    changed = change_all(split, operations, rngs)
    return [_joined(text, words, new) for text, words, new in zip(texts, split, changed, strict=True)]


def _joined(text: str, words: Sequence[str], changed: Words) -> str:
    """The changed words as text, each behind the white space that stood before it."""
    if changed == [(word, place) for place, word in enumerate(words)]:
        return text
    gaps = ["", *re.findall(r"\s+", text.strip())]
    return "".join((gaps[place] or " ") * (n > 0) + word for n, (word, place) in enumerate(changed))


def word_dropout(words: Words, operation: Any, rng: np.random.Generator) -> Words:
    """Each word stays with the chance ``1 - rate``; where none would, one does."""
    kept = rng.random(len(words)) >= operation.rate
    if words and not kept.any():
        kept[rng.integers(len(words))] = True
    return [word for word, stays in zip(words, kept, strict=True) if stays]


def word_swap(words: Words, operation: Any, rng: np.random.Generator) -> Words:
    """Each word changes places with the next by the chance ``rate``, unless it has just been moved."""
    swapped, chances, place = list(words), rng.random(len(words)), 0
    while place + 1 < len(swapped):
        if chances[place] < operation.rate:
            swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
            place += 1
        place += 1
    return swapped


def typos(words: Words, operation: Any, rng: np.random.Generator) -> Words:
    """Each word is mistyped once by the chance ``rate``."""
    hit = rng.random(len(words)) < operation.rate
    return [(mistyped(word, rng) if wrong and word else word, place) for (word, place), wrong in zip(words, hit, strict=True)]


def mistyped(word: str, rng: np.random.Generator) -> str:
    """The word with one mistake: a letter's neighbour on the keyboard, left out, doubled, or swapped with the next."""
    at = int(rng.integers(len(word)))
    match int(rng.integers(4)):
        case 0 if near := neighbours(word[at]):
            return word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]
        case 1 if len(word) > 1:
            return word[:at] + word[at + 1 :]
        case 2 if len(word) > 1:
            at = min(at, len(word) - 2)
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case _:
            return word[: at + 1] + word[at:]


def neighbours(letter: str) -> str:
    """The letters beside one on the keyboard, in its case; none for what is no letter."""
    for row in ROWS:
        at = row.find(letter.lower())
        if at >= 0:
            near = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
            return near.upper() if letter.isupper() else near
    return ""


OPERATIONS: dict[str, Callable[[Words, Any, np.random.Generator], Words]] = {
    "word_dropout": word_dropout,
    "word_swap": word_swap,
    "typos": typos,
}
