"""What a recipe says after it was loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml

from tunesmith.recipe import Recipe
from tunesmith.recipe.base import Section


def assert_says(recipe: Recipe, overrides: Sequence[str]) -> None:
    """The recipe holds the values of these overrides, each ``KEY=VALUE``."""
    for override in overrides:
        key, _, text = override.partition("=")
        _assert_holds(attrgetter(key)(recipe), yaml.safe_load(text), key)


def _assert_holds(found: Any, written: Any, key: str) -> None:
    if isinstance(written, Mapping) and isinstance(found, Section):
        for name, value in written.items():
            _assert_holds(getattr(found, name), value, f"{key}.{name}")
        return
    if isinstance(written, Mapping):
        written = {str(name): value for name, value in written.items()}  # a class may be called 0
    if isinstance(written, str) and isinstance(found, str) and Path(found).is_absolute():
        written = str(Path(written).absolute())  # paths are made absolute
    # One name may stand for a list of one; and YAML reads the words no and null as something else.
    meant = [written, [written], {None: "none", False: "no"}.get(written) if written in (None, False) else written]
    assert found in meant, f"{key}: {found!r}"
