"""Filters without a script: a row of chips of which one is chosen, and the rules that hide what does not fit.

The radio buttons lie before the list that they filter, and rules such as ``#chosen:checked ~ .list .item:not(.fitting)`` hide
the rest; the templates have them as the macros of ``filters.html.j2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST = 40
"""Chips of a row, the commonest."""


@dataclass(frozen=True)
class Filter:
    """A row of chips."""

    name: str
    """Of its radio buttons."""
    everything: str
    """The chip that hides nothing."""
    chips: dict[str, str]
    """Class of the items that a chip leaves → what it says."""


def by_value(name: str, everything: str, values: Iterable[Sequence[str]]) -> tuple[Filter | None, dict[str, str]]:
    """A filter by the values of each item, and the class that each value goes by: ``r0``, ``r1`` …

    No filter where there is one value only, or hardly one comes twice, as of free text.
    """
    counts: dict[str, int] = {}
    for each in values:
        for value in dict.fromkeys(each):
            counts[value] = counts.get(value, 0) + 1
    if len(counts) < 2 or (len(counts) > MOST and 2 * len(counts) > sum(counts.values())):
        return None, {}
    kept = sorted(sorted(counts, key=lambda value: (-counts[value], value))[:MOST])
    classes = {value: f"{name}{number}" for number, value in enumerate(kept)}
    return Filter(name, everything, {classes[value]: value for value in kept}), classes
