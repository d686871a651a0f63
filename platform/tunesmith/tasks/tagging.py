"""Metrics of tagged words: entity-level as in seqeval, or tag by tag where the tags name no entities.

Entities are read as seqeval's default mode does (the rules of CoNLL-2000's ``conlleval``): an ``I-`` tag after nothing or after
another type begins an entity. Everything is made from counts per sentence, so that sentences can be resampled and sliced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunesmith.tasks.counts import Values, averages, finish, matrix, micro, per_label, ratio

OUTSIDE = "O"


def tagging(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    labels: Sequence[str],
    weights: ArrayLike | None = None,
) -> Values:
    """The metrics of tagged sentences; ``precision``, ``recall`` and ``f1`` are those of all entities together (micro).

    >>> tagging([["B-PER", "I-PER", "O"]], [["B-PER", "I-PER", "B-LOC"]], ["O", "B-PER", "I-PER", "B-LOC"])["precision"]
    0.5
    """
    types = tag_types(labels)
    rows = [tagging_counts(one, other, types) for one, other in zip(gold, predicted, strict=True)]
    counts = np.array([[row["predicted"], row["correct"], row["gold"]] for row in rows], dtype=np.int64)
    counts = counts.reshape(len(rows), 3, len(types)).transpose(0, 2, 1)
    return tagging_metrics(counts, [row["tokens"] for row in rows], [row["tokens_correct"] for row in rows], types, weights)


def tagging_metrics(
    counts: ArrayLike,
    tokens: ArrayLike,
    tokens_correct: ArrayLike,
    types: Sequence[str],
    weights: ArrayLike | None = None,
) -> Values:
    """The same from the sentences' counts.

    Args:
        counts: ``[n, types, 3]``: entities predicted, correct, and in the reference.
        tokens: tokens of each sentence ``[n]``.
        tokens_correct: those with the right tag ``[n]``.
        types: the names of the entity types, or of the tags.
        weights: None, ``[n]`` or ``[b, n]``; see :mod:`tunesmith.tasks.metrics`.
    """
    table: NDArray[np.float64] = np.asarray(counts, dtype=np.float64)
    w = matrix(weights, table.shape[0])
    said, correct, support = (w @ table[:, :, place] for place in range(3))
    together = micro(said, correct, support)
    values: Values = {name: together[f"{name}_micro"] for name in ("precision", "recall", "f1")}
    values |= averages(said, correct, support)
    values["token_accuracy"] = ratio(w @ np.asarray(tokens_correct, np.float64), w @ np.asarray(tokens, np.float64))
    values |= per_label(types, said, correct, support, independent=False)
    return finish(values, weights)


def tagging_counts(gold: Sequence[str], predicted: Sequence[str], types: Sequence[str]) -> dict[str, Any]:
    """One sentence's counts: ``predicted``, ``correct`` and ``gold`` ``[types]``, ``tokens`` and ``tokens_correct``.

    ``types`` are those of :func:`tag_types`; an entity of another type is not counted.
    """
    spans = _plain_tags if any(tag in types for tag in (*gold, *predicted)) else entities
    index = {name: place for place, name in enumerate(types)}
    wanted, said = set(spans(gold)), set(spans(predicted))
    row: dict[str, Any] = {}
    for name, found in (("predicted", said), ("correct", said & wanted), ("gold", wanted)):
        held = [0] * len(types)
        for kind, _, _ in found:
            if kind in index:
                held[index[kind]] += 1
        row[name] = held
    row["tokens"] = len(gold)
    row["tokens_correct"] = sum(one == other for one, other in zip(gold, predicted, strict=True))
    return row


def tag_types(labels: Sequence[str]) -> list[str]:
    """The entity types among tags, in order; the tags themselves, but for ``O``, where none begins with ``B-`` or ``I-``.

    >>> tag_types(["O", "B-PER", "I-PER", "B-LOC"]), tag_types(["NOUN", "VERB"])
    (['PER', 'LOC'], ['NOUN', 'VERB'])
    """
    if not any(label.startswith(("B-", "I-")) for label in labels):
        return [label for label in labels if label != OUTSIDE]
    return list(dict.fromkeys(kind for prefix, kind in map(_parts, labels) if prefix != OUTSIDE))


def entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(type, first token, last token) of each entity; the prefixes of IOB1, IOB2 and IOBES are understood.

    Source: ``seqeval.metrics.sequence_labeling.get_entities``, whose numbers these are.

    >>> list(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [('PER', 0, 1), ('LOC', 3, 3), ('LOC', 4, 4)]
    """
    previous, kind, start = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, new = _parts(tag)
        if _ends(previous, prefix, kind, new):
            yield kind, start, place - 1
        if _starts(previous, prefix, kind, new):
            start = place
        previous, kind = prefix, new


def _parts(tag: str) -> tuple[str, str]:
    """``B-PER`` → ``("B", "PER")``; a prefix without a type gets ``_``, as in seqeval."""
    return tag[:1], tag[1:].split("-", maxsplit=1)[-1] or "_"


def _ends(previous: str, prefix: str, kind: str, new: str) -> bool:
    if previous in ("E", "S"):
        return True
    if previous in ("B", "I"):
        return prefix in ("B", "S", OUTSIDE) or kind != new
    return previous not in (OUTSIDE, ".") and kind != new


def _starts(previous: str, prefix: str, kind: str, new: str) -> bool:
    if prefix in ("B", "S"):
        return True
    if prefix in ("E", "I"):
        return previous in ("E", "S", OUTSIDE) or kind != new
    return prefix not in (OUTSIDE, ".") and kind != new


def _plain_tags(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    for place, tag in enumerate(tags):
        yield tag, place, place
