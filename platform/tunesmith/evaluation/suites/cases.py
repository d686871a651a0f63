"""The cases of a behavioural test: templates filled from lexicons, and what is changed in them; a seeded draw of too many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.evaluation import perturbations
from tunesmith.evaluation.suites.base import Bench
from tunesmith.recipe.behaviour import BehaviourTest, listed, parts, slots

MOST_VARIED = 5
"""Other fillings of a slot that each case is held against."""

Fill = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One example, and what it becomes."""

    given: Mapping[str, str]
    changed: Sequence[Mapping[str, str]] = field(default_factory=list)


def cases_of(test: BehaviourTest, lexicons: Mapping[str, Sequence[str]], bench: Bench, role: str) -> list[Case]:
    """The cases of a test, at most ``max_cases``; what a change leaves as it is, is none. ``role`` is a plain text's."""
    rng = np.random.default_rng([bench.settings.seed, *test.name.encode()])
    change = _change(test, bench)
    found = []
    for template, fill in _given(test, lexicons, bench, role, rng):
        given = _filled(template, fill, role)
        if test.type == "minimum_functionality":
            found.append(Case(given))
            continue
        if "vary" in test.change:
            others = _varied(str(test.change["vary"]), fill, lexicons, rng)
            changed = [_filled(template, other, role) for other in others]
        else:
            changed = [{**given, role: text} for text in change(given[role], rng)]
        changed = [one for one in changed if one != given]
        if changed:
            found.append(Case(given, changed))
    return found


def _given(
    test: BehaviourTest, lexicons: Mapping[str, Sequence[str]], bench: Bench, role: str, rng: np.random.Generator
) -> Iterator[tuple[str | Mapping[str, str], Fill | None]]:
    """Templates with what fills them; texts as they are, with None."""
    if test.from_data:
        chosen = np.sort(rng.permutation(len(bench.split))[: test.max_cases])
        inputs = [name for name in bench.target.task.columns if name != bench.target.task.target]
        for example in bench.split.examples(chosen):
            yield {name: example[name] for name in inputs if example.get(name) is not None}, None
        return
    for text in test.examples[: test.max_cases]:
        yield text, None
    for k, template in enumerate(test.templates):
        share = test.max_cases // len(test.templates) + (k < test.max_cases % len(test.templates))
        names = list(dict.fromkeys(name for text in parts(template) for name in slots(text)))
        sizes = [len(lexicons[name]) for name in names]
        for place in _some(math.prod(sizes), share, rng):
            fill = {}
            for name, size in zip(names, sizes, strict=True):
                place, at = divmod(place, size)
                fill[name] = str(lexicons[name][at])
            yield template, fill


def _some(total: int, most: int, rng: np.random.Generator) -> list[int]:
    """All numbers below ``total``, or so many of them at random, sorted."""
    if total <= most:
        return list(range(total))
    drawn: set[int] = set()
    while len(drawn) < most:
        drawn.update(int(one) for one in rng.integers(0, total, most - len(drawn)))
    return sorted(drawn)


def _filled(template: str | Mapping[str, str], fill: Fill | None, role: str) -> dict[str, str]:
    by_role = {role: template} if isinstance(template, str) else template
    return {name: text if fill is None else text.format_map(fill) for name, text in by_role.items()}


def _varied(slot: str, fill: Fill | None, lexicons: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[Fill]:
    """The fill with other words in a slot; none where the text has no slots."""
    if fill is None or slot not in fill:
        return []
    others = [str(word) for word in lexicons[slot] if str(word) != fill[slot]]
    return [{**fill, slot: others[k]} for k in sorted(rng.permutation(len(others))[:MOST_VARIED])]


def _change(test: BehaviourTest, bench: Bench) -> Callable[[str, np.random.Generator], list[str]]:
    """What becomes of a text."""
    change: Mapping[str, Any] = test.change
    if "perturb" in change:
        name = str(change["perturb"])
        perturb = next(iter(perturbations.find([name], "text", bench.folders).values()))
        return lambda text, rng: [perturb(text, int(change.get("severity", 2)), rng)]
    if "append" in change:
        return lambda text, rng: [text + str(one) for one in listed(change["append"])]
    if "prepend" in change:
        return lambda text, rng: [str(one) + text for one in listed(change["prepend"])]
    pairs = [(str(old), str(new)) for old, news in change.get("replace", {}).items() for new in listed(news)]
    return lambda text, rng: [text.replace(old, new) for old, new in pairs if old in text]
