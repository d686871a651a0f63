"""Where two nested mappings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.recipe.resolve import UNCOUNTED

PLACES = frozenset({"name", *UNCOUNTED})
"""What a run is called and where it is kept and reported does not make it another training."""


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; lists are values.

    >>> dict(flattened({"a": {"b": 1, "c": [2]}}))
    {'a.b': 1, 'a.c': [2]}
    """
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], ignore: frozenset[str] = PLACES
) -> list[tuple[str, Any, Any]]:
    """Key, first value and second value wherever they differ; None and an empty mapping are the same as nothing.

    >>> differences({"training": {"seed": 1}}, {"training": {"seed": 2}, "name": "x"})
    [('training.seed', 1, 2)]
    """
    one, two = dict(flattened(first)), dict(flattened(second))
    keys = [*one, *(key for key in two if key not in one)]
    pairs = ((key, one.get(key), two.get(key)) for key in keys if key not in ignore)
    return [(key, a, b) for key, a, b in pairs if a != b and not (_nothing(a) and _nothing(b))]


def _nothing(value: Any) -> bool:
    return value is None or value == {}
