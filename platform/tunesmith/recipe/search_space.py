"""The space of a search: what stands under ``search.space``, read into dimensions, and every mistake in it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import nearest

KINDS = ("choice", "uniform", "loguniform", "randint", "quniform", "grid")
WHEN = "when"
EXAMPLE = {
    "choice": "choice: [a, b]",
    "uniform": "uniform: [0, 0.1]",
    "loguniform": "loguniform: [1e-5, 1e-2]",
    "randint": "randint: [4, 64]",
    "quniform": "quniform: [0, 0.1, 0.01]",
    "grid": "grid: [a, b]",
}

NEAR = 1e-9
"""Numbers of a range with steps that are relatively nearer to each other are the same: steps add up with an error."""

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Dimension:
    """One searched key."""

    key: str
    """Dotted, of the recipe."""
    kind: str
    values: tuple[Any, ...] = ()
    """What it may be, of a ``choice`` or ``grid``."""
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    """Of ``quniform``."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Other searched keys → the values of theirs with which this one is there at all."""
    place: Keys = ()
    """Where it stands in the recipe."""

    @property
    def log(self) -> bool:
        """Whether distances are ratios."""
        return self.kind == "loguniform"

    def all_values(self) -> tuple[Any, ...] | None:
        """Every value, or None where there are too many to name.

        >>> Dimension("training.seed", "randint", low=1, high=3).all_values()
        (1, 2, 3)
        """
        if self.kind in ("choice", "grid"):
            return self.values
        if self.kind == "randint":
            return tuple(range(int(self.low), int(self.high) + 1))
        if self.kind == "quniform":
            return tuple(self.at_step(n) for n in range(self.steps + 1))
        return None

    @property
    def steps(self) -> int:
        """How many steps a ``quniform`` makes from its beginning; the last may lie before its end."""
        return math.floor((self.high - self.low) / self.step + NEAR)

    def at_step(self, number: int) -> float:
        """The value of a ``quniform`` after so many steps."""
        return rounded(self.low + number * self.step)

    def step_of(self, value: float) -> int:
        """The number of the step of a ``quniform`` that is nearest to a value."""
        return min(max(round((value - self.low) / self.step), 0), self.steps)

    def ends(self) -> tuple[Any, ...]:
        """The values that the recipe's schema must take for it to take all."""
        if self.kind in ("choice", "grid"):
            return self.values
        return (int(self.low), int(self.high)) if self.kind == "randint" else (self.low, self.high)

    def has(self, value: Any) -> bool:
        """Whether a value lies in it; in a ``quniform``, on one of its steps.

        >>> steps = Dimension("training.weight_decay", "quniform", low=0, high=0.1, step=0.02)
        >>> steps.has(0.06), steps.has(3 * 0.02), steps.has(0.01)
        (True, True, False)
        """
        if self.kind in ("choice", "grid"):
            return value in self.values
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind == "randint" and value != int(value):
            return False
        if self.kind == "quniform":
            return math.isfinite(value) and abs(value - self.at_step(self.step_of(value))) <= NEAR * max(self.step, abs(value))
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Flaw:
    """A mistake in the space."""

    place: Keys
    what: str
    fix: str


def parse(space: Mapping[str, Any]) -> tuple[list[Dimension], list[Flaw]]:
    """The dimensions, those that others depend on first, and what is wrong.

    Keys may be dotted or nested.

    >>> rate = {"learning_rate": {"loguniform": [1e-5, 1e-2]}}
    >>> found, flaws = parse({"training": rate, "model.dropout": {"uniform": [1, 0]}})
    >>> found[0].key, found[0].low, flaws[0].what
    ('training.learning_rate', 1e-05, 'the range ends at 0, before it begins at 1')
    """
    dimensions: list[Dimension] = []
    flaws: list[Flaw] = []
    for key, place, told in _entries(space, "", ("search", "space")):
        found = _dimension(key, place, told)
        if isinstance(found, Flaw):
            flaws.append(found)
        else:
            dimensions.append(found)
    if not flaws:
        flaws += _conditions(dimensions)
    return (_ordered(dimensions) if not flaws else dimensions), flaws


def active(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    """Whether a key is there, with these values of the others."""
    return all(key in values and values[key] in wanted for key, wanted in dimension.when.items())


def combinations(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Every combination of values; keys whose condition does not hold are left out.

    >>> space, _ = parse({"training.adaptation": {"grid": ["full", "lora"]},
    ...     "training.lora.r": {"grid": [4, 8], "when": {"training.adaptation": "lora"}}})
    >>> list(combinations(space))[-1], len(list(combinations(space)))
    ({'training.adaptation': 'lora', 'training.lora.r': 8}, 3)
    """

    def further(rest: Sequence[Dimension], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield dict(chosen)
        elif not active(rest[0], chosen):
            yield from further(rest[1:], chosen)
        else:
            for value in rest[0].all_values() or ():
                yield from further(rest[1:], {**chosen, rest[0].key: value})

    return further(dimensions, {})


def count_combinations(dimensions: Sequence[Dimension]) -> int:
    """How many :func:`combinations` there are at most: as if every key were there."""
    return math.prod(len(one.all_values() or ()) for one in dimensions)


def rounded(value: float) -> float:
    """Without the last digits that adding up steps leaves: 0.30000000000000004 is 0.3."""
    return float(f"{value:.12g}")


def _entries(node: Mapping[str, Any], prefix: str, place: Keys) -> Iterator[tuple[str, Keys, Any]]:
    """Key, place and what is told of each, through nested sections."""
    for name, told in node.items():
        key, here = f"{prefix}{name}", (*place, name)
        if isinstance(told, Mapping) and told and not set(told) & {*KINDS, WHEN} and _is_nested(told):
            yield from _entries(told, f"{key}.", here)
        else:
            yield key, here, told


def each_value(space: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A sound space with ``change(key, value)`` in place of each value that is named, in conditions too.

    >>> told = {"choice": [0, 1], "when": {"training.seed": 2}}
    >>> each_value({"model": {"dropout": told}}, lambda key, value: f"{key}={value}")
    {'model': {'dropout': {'choice': ['model.dropout=0', 'model.dropout=1'], 'when': {'training.seed': 'training.seed=2'}}}}
    """
    changed = copy.deepcopy(dict(space))
    for key, _, told in _entries(changed, "", ()):
        for kind in {"choice", "grid"} & told.keys():
            told[kind] = [change(key, value) for value in told[kind]]
        for other, wanted in (told.get(WHEN) or {}).items():
            told[WHEN][other] = [change(other, one) for one in wanted] if isinstance(wanted, list) else change(other, wanted)
    return changed


def _is_nested(told: Mapping[str, Any]) -> bool:
    """Whether it holds further keys rather than a misspelt kind."""
    return any(isinstance(child, Mapping) for child in told.values())


def _dimension(key: str, place: Keys, told: Any) -> Dimension | Flaw:
    if not isinstance(told, Mapping):
        shown = f"[{', '.join(map(str, told))}]" if isinstance(told, list) else str(told)
        fix = f"write {{choice: {shown}}}" if isinstance(told, list) else "write what it may be, such as {choice: [a, b]}"
        return Flaw(place, f"found {shown} where a range belongs", fix)
    kinds = [name for name in told if name in KINDS]
    unknown = [str(name) for name in told if name not in (*KINDS, WHEN)]
    if unknown:
        near = nearest(unknown[0].lower(), (*KINDS, WHEN))
        fix = f"did you mean {near}?" if near else "write one of " + ", ".join(KINDS)
        return Flaw((*place, unknown[0]), f"there is no kind of range {unknown[0]!r}", fix)
    if len(kinds) != 1:
        what = "it has no range" if not kinds else f"it has {len(kinds)} ranges: {', '.join(kinds)}"
        return Flaw(place, what, "write one of " + ", ".join(KINDS))
    kind, when = kinds[0], told.get(WHEN) or {}
    if not isinstance(when, Mapping):
        return Flaw((*place, WHEN), "found no condition", "write when: {KEY: VALUE}, another searched key and a value of it")
    conditions = {str(name): tuple(wanted) if isinstance(wanted, list) else (wanted,) for name, wanted in when.items()}
    given, here = told[kind], (*place, kind)
    if not isinstance(given, list):
        return Flaw(here, f"found {given}, which is no list", f"write {EXAMPLE[kind]}")
    if kind in ("choice", "grid"):
        if not given:
            return Flaw(here, "the list is empty", f"write {EXAMPLE[kind]}")
        twice = next((value for index, value in enumerate(given) if value in given[:index]), None)
        if twice is not None:
            return Flaw(here, f"{twice!r} is there twice", "name each value once")
        return Dimension(key, kind, tuple(given), when=conditions, place=place)
    return _range(key, kind, given, conditions, place)


def _range(key: str, kind: str, given: list[Any], when: Mapping[str, tuple[Any, ...]], place: Keys) -> Dimension | Flaw:
    here, length = (*place, kind), 3 if kind == "quniform" else 2
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    finite = all(math.isfinite(value) for value in numbers)
    if len(given) != length or len(numbers) != length or not finite:
        shown = ", ".join(map(str, given))
        return Flaw(here, f"found [{shown}], which is not {length} numbers", f"write {EXAMPLE[kind]}")
    low, high = numbers[:2]
    step = float(numbers[2]) if length == 3 else 0.0
    if low > high:
        return Flaw(here, f"the range ends at {high:g}, before it begins at {low:g}", f"write [{high:g}, {low:g}]")
    if low == high:
        return Flaw(here, f"the range is empty: it begins and ends at {low:g}", f"remove it, and set {key}: {low:g}")
    if kind == "loguniform" and low <= 0:
        return Flaw(here, f"a logarithmic range cannot begin at {low:g}", "begin above 0, such as 1e-6, or write uniform")
    if kind == "randint" and (low != int(low) or high != int(high)):
        return Flaw(here, f"[{low:g}, {high:g}] are no whole numbers", "write whole numbers, or uniform")
    if kind == "quniform" and not 0 < step <= high - low:
        return Flaw(here, f"a step of {step:g} does not fit between {low:g} and {high:g}", f"write {EXAMPLE[kind]}")
    return Dimension(key, kind, low=float(low), high=float(high), step=step, when=when, place=place)


def _conditions(dimensions: Sequence[Dimension]) -> Iterator[Flaw]:
    """Conditions are on keys that are searched, and on values that those can have, and not on each other in a circle."""
    known = {one.key: one for one in dimensions}
    for one in dimensions:
        for key, wanted in one.when.items():
            place = (*one.place, WHEN, key)
            if key not in known:
                near = nearest(key, [name for name in known if name != one.key])
                fix = f"did you mean {near}?" if near else "name a key that is searched too, or remove the condition"
                yield Flaw(place, f"{key} is not searched", fix)
                continue
            missing = [value for value in wanted if not known[key].has(value)]
            if missing:
                fix = "write one of its values: " + ", ".join(map(str, known[key].ends()))
                yield Flaw(place, f"{key} is never {missing[0]!r}", fix)
        if one.key in _behind(one, known):
            yield Flaw((*one.place, WHEN), f"{one.key} hangs on itself", "remove one of the conditions")


def _behind(one: Dimension, known: Mapping[str, Dimension]) -> set[str]:
    """Every key that a key's conditions lead to."""
    seen: set[str] = set()
    waiting = list(one.when)
    while waiting:
        key = waiting.pop()
        if key not in seen and key in known:
            seen.add(key)
            waiting += known[key].when
    return seen


def _ordered(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Every key behind those that its condition is on; otherwise in the order of the recipe."""
    known = {one.key: one for one in dimensions}
    return sorted(dimensions, key=lambda one: _depth(one, known))


def _depth(one: Dimension, known: Mapping[str, Dimension]) -> int:
    return 1 + max((_depth(known[key], known) for key in one.when), default=-1)
