"""Words are left out, swapped and mistyped at the rates that the recipe says, and keep their places."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.recipe.augment import Typos, WordDropout, WordSwap
from tunesmith.tasks.augment.words import ROWS, change_text, change_words, mistyped, typos, word_dropout, word_swap

pytestmark = pytest.mark.unit

MANY = [f"word{k}" for k in range(20_000)]
PLACED = [(word, place) for place, word in enumerate(MANY)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_words_are_left_out_at_the_rate() -> None:
    kept = word_dropout(PLACED, WordDropout(name="word_dropout", rate=0.3), rng())
    assert len(kept) / len(MANY) == pytest.approx(0.7, abs=0.015), "four standard deviations"
    assert kept == sorted(kept, key=lambda one: one[1]), "in order"
    assert all(MANY[place] == word for word, place in kept)


def test_one_word_stays_at_least() -> None:
    operation = WordDropout(name="word_dropout", rate=0.999)
    counts = [len(word_dropout(PLACED[:3], operation, rng(seed))) for seed in range(50)]
    assert min(counts) == 1
    assert word_dropout([], operation, rng()) == []


def test_only_neighbours_change_places_and_no_word_twice() -> None:
    swapped = word_swap(PLACED, WordSwap(name="word_swap", rate=0.2), rng())
    assert sorted(swapped, key=lambda one: one[1]) == PLACED
    moved = np.array([place for _, place in swapped]) - np.arange(len(swapped))
    assert set(moved) == {-1, 0, 1}
    # A word is free unless it was just moved: swaps s per place obey s = rate · (1 - s).
    assert (moved == 1).mean() == pytest.approx(0.2 / 1.2, abs=0.01)
    assert [place for _, place in word_swap(PLACED[:5], WordSwap(name="word_swap", rate=1), rng())] == [1, 0, 3, 2, 4]


def test_words_are_mistyped_at_the_rate_by_one_mistake_each() -> None:
    changed = typos(PLACED, Typos(name="typos", rate=0.25), rng())
    assert [place for _, place in changed] == list(range(len(MANY)))
    differ = [(word, MANY[place]) for word, place in changed if word != MANY[place]]
    assert len(differ) / len(MANY) == pytest.approx(0.25, abs=0.015)
    assert all(abs(len(new) - len(old)) <= 1 for new, old in differ)


def test_a_mistake_is_one_of_four() -> None:
    found = {mistyped("tea", rng(seed)) for seed in range(300)}
    beside = {
        old: {row[k + d] for row in ROWS for k in range(len(row)) if row[k] == old for d in (-1, 1) if 0 <= k + d < len(row)}
        for old in "tea"
    }
    keys = {"tea"[:k] + new + "tea"[k + 1 :] for k in range(3) for new in beside["tea"[k]]}
    assert found == keys | {"ea", "ta", "te"} | {"eta", "tae"} | {"ttea", "teea", "teaa"}
    assert {mistyped("Ö", rng(seed)) for seed in range(40)} == {"ÖÖ"}


def test_without_a_chance_nothing_is_changed() -> None:
    operations = [WordDropout(name="word_dropout", p=0, rate=0.9), Typos(name="typos", p=0, rate=1)]
    assert change_words(MANY[:9], operations, rng()) == PLACED[:9]
    assert change_text(" two  words\n", operations, rng()) == " two  words\n"


def test_white_space_goes_with_the_word_behind_it() -> None:
    drop = WordDropout(name="word_dropout", p=1, rate=0.5)
    found = {change_text("one\ttwo\nthree", [drop], rng(seed)) for seed in range(60)}
    assert found == {"one\ttwo\nthree", "one\ttwo", "one\nthree", "two\nthree", "one", "two", "three"}
