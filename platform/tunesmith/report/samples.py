"""The report's last section: examples to look through, the wrong ones first, filtered by right and wrong and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from markupsafe import Markup

from tunesmith.evaluation.results import Evaluation, ShownExample
from tunesmith.report import filters, page
from tunesmith.tasks.tagging import OUTSIDE

LIST, ITEM = ".samples", ".s"

Kind = Literal["", "hit", "miss", "extra", "wrong"]


@dataclass(frozen=True)
class Span:
    """Words in a row that are of one entity, or of none."""

    words: str
    kind: Kind = ""
    """``miss``: an entity that was not found; ``extra``: one that is none; ``wrong``: of another type."""
    said: str = ""
    """What stands under it: its type, and what the model took it for."""


def section(found: Evaluation) -> page.Section | None:
    """The samples; None where none were kept."""
    shown = found.samples.shown
    if not shown:
        return None
    by_answer, classes = filters.by_value("r", "every right answer", (_kinds(one) for one in shown))
    wrong = sum(not one.correct for one in shown)
    by_right = filters.Filter("s", f"all {len(shown):,}", {"w": f"wrong {wrong:,}", "g": f"right {len(shown) - wrong:,}"})
    chosen = [by_right, *([by_answer] if by_answer else [])]
    macros: Any = page.environment().get_template("filters.html.j2").module
    html = (
        page.environment()
        .get_template("samples.html.j2")
        .render(
            rows=[_row(one, classes) for one in shown],
            pictures=all(given.kind == "image" for one in shown for given in one.inputs),
            chips=macros.chips(chosen),
            samples=found.samples,
            right=len(shown) - wrong,
            wrong=wrong,
            tagged=any(_is_tagged(one) for one in shown),
        )
    )
    return page.Section("Sample by sample", Markup(html), str(macros.rules(chosen, LIST, ITEM)), "samples")


def spans(words: Sequence[str], reference: Sequence[str], said: Sequence[str]) -> list[Span]:
    """The words with their entities, those that belong together joined.

    >>> tags = ["O", "B-LOC", "I-LOC"], ["B-LOC", "B-LOC", "O"]
    >>> [(one.words, one.kind, one.said) for one in spans(["in", "New", "York"], *tags)]
    [('in', 'extra', 'LOC, not O'), ('New', 'hit', 'LOC'), ('York', 'miss', 'O, not LOC')]
    """
    tags = [(_at(reference, k), _at(said, k)) for k in range(len(words))]
    begun = 0
    starts = []
    for k, pair in enumerate(tags):
        # an entity that begins here parts it from one of the same type just before
        fresh = any(tag.startswith(("B-", "S-", "U-")) for tag in pair)
        if k == 0 or fresh or _span_of(pair) != _span_of(tags[k - 1]):
            begun = k
        starts.append(begun)
    found = []
    for start, places in groupby(range(len(words)), key=starts.__getitem__):
        kind, label = _span_of(tags[start])
        found.append(Span(" ".join(words[k] for k in places), kind, label))
    return found


def _span_of(pair: tuple[str, str]) -> tuple[Kind, str]:
    right, said = pair
    real, told = _type(right), _type(said)
    if right == said:
        return ("", "") if right in (OUTSIDE, "") else ("hit", real)
    if told == real:
        real, told = right, said
    kind: Kind = "miss" if said in (OUTSIDE, "") else "extra" if right in (OUTSIDE, "") else "wrong"
    return kind, f"{told or '–'}, not {real or '–'}"


def _type(tag: str) -> str:
    """The entity type in a tag; a tag without a prefix is its own."""
    return tag[2:] if tag[1:2] == "-" and tag[0] in "BIESLU" else tag


def _at(tags: Sequence[str], place: int) -> str:
    return tags[place] if place < len(tags) else ""


def _is_tagged(one: ShownExample) -> bool:
    lists = isinstance(one.reference, list) and isinstance(one.prediction, list)
    return lists and any(given.kind == "strings" for given in one.inputs)


def _kinds(one: ShownExample) -> list[str]:
    """What a sample can be filtered by: its class, its labels, or the types of its entities."""
    if isinstance(one.reference, str):
        return [one.reference]
    if not isinstance(one.reference, list) or not all(isinstance(tag, str) for tag in one.reference):
        return []
    return [_type(tag) for tag in one.reference if tag != OUTSIDE] if _is_tagged(one) else one.reference


def _row(one: ShownExample, classes: dict[str, str]) -> dict[str, Any]:
    """What the template shows of a sample."""
    own = sorted({classes[kind] for kind in _kinds(one) if kind in classes})
    score = one.confidence if one.confidence is not None and math.isfinite(one.confidence) else None
    tagged = _is_tagged(one)
    words: list[str] = next((given.value for given in one.inputs if given.kind == "strings"), [])
    return {
        "css": " ".join(["s", "g" if one.correct else "w", *own]),
        "one": one,
        "score": score,
        "loss": one.loss if score is None and math.isfinite(one.loss) else None,
        "tagged": tagged,
        "spans": spans(words, one.reference, one.prediction) if tagged else [],
    }
