"""Damage to texts; what is inside words stands in :mod:`tunesmith.evaluation.perturbations.words`."""

from __future__ import annotations

import re

import numpy as np

from tunesmith.evaluation.perturbations import words as inside
from tunesmith.evaluation.perturbations.words import chosen

Rng = np.random.Generator

SHORT = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't", "are not": "aren't",
    "was not": "wasn't", "were not": "weren't", "can not": "can't", "cannot": "can't", "could not": "couldn't",
    "would not": "wouldn't", "should not": "shouldn't", "will not": "won't", "has not": "hasn't", "have not": "haven't",
    "had not": "hadn't", "it is": "it's", "that is": "that's", "there is": "there's", "what is": "what's",
    "I am": "I'm", "you are": "you're", "we are": "we're", "they are": "they're", "he is": "he's", "she is": "she's",
    "I have": "I've", "you have": "you've", "we have": "we've", "they have": "they've", "I will": "I'll",
    "you will": "you'll", "we will": "we'll", "they will": "they'll", "I would": "I'd", "let us": "let's",
}  # fmt: skip
"""Long form → short form, English (after CheckList's list of contractions)."""

LONG = {short: long for long, short in SHORT.items() if long != "can not"}
_FORMS = re.compile(r"\b(" + "|".join(sorted(map(re.escape, [*SHORT, *LONG]), key=len, reverse=True)) + r")\b", re.IGNORECASE)

SENTENCES = (
    "The page has two columns.",
    "It was a Tuesday.",
    "The list goes on below.",
    "A window stood open.",
    "The number is written in blue.",
    "Someone walked past.",
    "The paper was folded once.",
    "There is a table in the hall.",
)
"""Sentences that say nothing of anything: no praise, no names, no numbers."""


def typos(text: str, severity: int, rng: Rng) -> str:
    """A letter left out, doubled, or swapped with the next, in some words."""
    return _within(inside.typos, text, severity, rng)


def keyboard(text: str, severity: int, rng: Rng) -> str:
    """A letter's neighbour on the keyboard in its place, in some words."""
    return _within(inside.keyboard, text, severity, rng)


def case(text: str, severity: int, rng: Rng) -> str:
    """Some words in capitals, or with small and capital letters changed about."""
    return _within(inside.case, text, severity, rng)


def lookalikes(text: str, severity: int, rng: Rng) -> str:
    """Some words in letters that look the same and are others."""
    return _within(inside.lookalikes, text, severity, rng)


def whitespace(text: str, severity: int, rng: Rng) -> str:
    """Some gaps between words closed, doubled, or made a line break."""
    words, gaps = _split(text)
    for place in chosen(range(1, len(words)), severity, rng):
        gaps[place] = ("", gaps[place] * 2, "\n")[int(rng.integers(3))]
    return _joined(words, gaps)


def word_drop(text: str, severity: int, rng: Rng) -> str:
    """Some words left out, never all."""
    words, gaps = _split(text)
    gone = set(chosen(range(len(words)), severity, rng)) if len(words) > 1 else set()
    kept = [k for k in range(len(words)) if k not in gone]
    return _joined([words[k] for k in kept], [gaps[k] if n else gaps[0] for n, k in enumerate(kept)] + gaps[-1:])


def word_swap(text: str, severity: int, rng: Rng) -> str:
    """Some words have changed places with the next."""
    words, gaps = _split(text)
    for place in chosen(range(len(words) - 1), severity, rng):
        words[place], words[place + 1] = words[place + 1], words[place]
    return _joined(words, gaps)


def contractions(text: str, severity: int, rng: Rng) -> str:
    """``do not`` as ``don't`` and the other way round, in English, in so many fifths of the places where that can be."""
    places = list(_FORMS.finditer(text))
    count = max(1, round(severity / 5 * len(places)))
    for k in sorted(rng.permutation(len(places))[:count], reverse=True):
        found = places[k]
        text = text[: found.start()] + _other_form(found.group()) + text[found.end() :]
    return text


def irrelevant(text: str, severity: int, rng: Rng) -> str:
    """As many sentences as the severity that say nothing of the matter, before or behind the text."""
    before: list[str] = []
    behind: list[str] = []
    for k in rng.permutation(len(SENTENCES))[:severity]:
        (before if rng.random() < 0.5 else behind).append(SENTENCES[k])
    return " ".join([*before, text, *behind])


def _within(change: inside.Change, text: str, severity: int, rng: Rng) -> str:
    words, gaps = _split(text)
    return _joined(change(words, severity, rng), gaps)


def _split(text: str) -> tuple[list[str], list[str]]:
    """Words, and the white space before each and behind the last."""
    return text.split(), [*re.split(r"\S+", text)]


def _joined(words: list[str], gaps: list[str]) -> str:
    return "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True))


def _other_form(found: str) -> str:
    known = {**{one.lower(): other for one, other in SHORT.items()}, **{one.lower(): other for one, other in LONG.items()}}
    made = known[found.lower()]
    return made[0].upper() + made[1:] if found[0].isupper() else made
