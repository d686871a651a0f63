"""Near texts are found by their definition, the share of common shingles, and only those."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.planted import Words
from tunesmith.data.care import texts

pytestmark = pytest.mark.unit


def shingle_set(text: str) -> set[str]:
    """The definition: all 5 characters in a row of the folded text, and the shorter rests at its end."""
    folded = texts.fold(text)
    return {folded[start : start + texts.SHINGLE] for start in range(len(folded))}


def similarity(one: str, other: str) -> float:
    left, right = shingle_set(one), shingle_set(other)
    return len(left & right) / len(left | right)


def pairs_of(rows: list[str], least: float = 0.8) -> set[tuple[int, int]]:
    def read(wanted: np.ndarray) -> Iterator[list[str]]:
        for start in range(0, len(wanted), 7):
            yield [rows[k] for k in wanted[start : start + 7]]

    found, complete = texts.near_pairs(len(rows), read, least)
    assert complete
    return {(int(one), int(other)) for one, other in found}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40)), min_size=1, max_size=8))
def test_similarity_is_that_of_the_sets(rows: list[tuple[str, str]]) -> None:
    left, right = zip(*rows, strict=True)
    found = texts.jaccard([texts.fold(text) for text in left], [texts.fold(text) for text in right])
    assert found == pytest.approx([similarity(one, other) for one, other in rows])


def test_the_smallest_of_120_permutations_estimate_the_similarity() -> None:
    words = Words(3)
    agreed = []
    for number in range(60):
        row = words.row()
        other = words.nearly(words.nearly(row, 1), number % 4)
        keys = texts.band_keys(2, lambda wanted, rows=(row["text"], other["text"]): iter([[rows[k] for k in wanted]]))
        agreed.append(((keys[:, 0] == keys[:, 1]).mean(), similarity(row["text"], other["text"]) ** texts.WIDTH))
    shares, wanted = np.mean(agreed, axis=0)
    assert shares == pytest.approx(wanted, abs=0.06)


def test_edited_texts_are_found_and_others_are_not() -> None:
    words = Words(0)
    rows = [words.row()["text"] for _ in range(300)]
    edited = [words.nearly({"text": rows[k]}, k % 4)["text"] for k in range(40)]
    near = {(k, 300 + k) for k in range(40) if similarity(rows[k], edited[k]) >= 0.8}
    assert len(near) >= 38
    assert pairs_of(rows + edited) == near


def test_case_punctuation_and_form_do_not_count_but_words_do() -> None:
    rows = [
        "The film was very good indeed",
        "the film was VERY good, indeed!",
        "ｔｈｅ film was very good indeed",
        "a film we hated",
    ]
    assert pairs_of(rows, 1.0) == {(0, 1), (0, 2), (1, 2)}
    assert pairs_of(["I like it", "I do not like it"]) == set()


def test_large_groups_hold_together_without_listing_every_pair() -> None:
    from tunesmith.data.care.groups import joined

    rows = [f"{'the same long beginning of every one of these rows ' * 3}{k:03d}" for k in range(200)]
    found = np.array(sorted(pairs_of(rows)))
    assert len(found) < 200 * texts.NEIGHBOURS * 3
    assert len(np.unique(joined(200, found))) == 1


@pytest.mark.parametrize("rows", [["!!!", "!!!?"], ["a", "a b"], ["x", "\0"]])
def test_texts_of_hardly_anything_do_no_harm(rows: list[str]) -> None:
    words = Words(3)
    twins = [words.row()["text"]] * 2
    found = pairs_of([*rows, *twins])
    assert (2, 3) in found
    assert found <= {(0, 1), (2, 3)}


def test_any_block_size_gives_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words(1)
    rows = [words.row()["text"] for _ in range(30)]
    whole = texts.band_keys(30, lambda wanted: iter([rows]))
    monkeypatch.setattr(texts, "BLOCK", 200)
    assert np.array_equal(whole, texts.band_keys(30, lambda wanted: iter([rows[:11], rows[11:]])))
