"""Writes ``docs/recipe.md``: every key of a recipe, from the docstrings of its fields. Usage: ``make docs``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from tunesmith.recipe import Recipe
from tunesmith.recipe.base import Section, element_of, section_of, variants_of
from tunesmith.recipe.keys import wanted

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
HEAD = """\
# The recipe

One YAML file says everything. `tunesmith init TASK` writes one with comments, `tunesmith validate RECIPE` lists every mistake
in one, and `tunesmith validate RECIPE --resolved` prints every value with where it comes from. Any key can be given on the
command line as well: `tunesmith train recipe.yaml training.learning_rate=3e-5`.

This page is made from the code by `make docs`.
"""


def render() -> str:
    """The page."""
    return HEAD + "".join(_section(Recipe, ""))


def _section(section: type[Section], key: str) -> list[str]:
    """The table of a section, and the tables of the sections in it."""
    inner = {name: section_of(field.annotation) for name, field in section.model_fields.items()}
    title = f"## `{key}:`\n\n{_line(section.__doc__ or '')}\n" if key else "## At the top\n"
    rows = [_row(name, field) for name, field in section.model_fields.items() if inner[name] is None]
    table = ["\n| Key | Takes | If left out | |\n|---|---|---|---|\n", *rows] if rows else []
    nested = [line for name, model in inner.items() if model for line in _section(model, f"{key}.{name}" if key else name)]
    lists = [line for name, field in section.model_fields.items() for line in _variants(f"{key}.{name}", field)]
    lists += _elements(key, section)
    return ["\n", title, *table, *lists, *nested]


def _variants(key: str, field: FieldInfo) -> list[str]:
    """The tables of the named sections that a list may hold."""
    lines = []
    for name, section in variants_of(field.annotation).items():
        rows = [_row(argument, inner) for argument, inner in section.model_fields.items() if argument != "name"]
        head = f"\n### `{key}: [{{name: {name}}}]`\n\n{_line(section.__doc__ or '')}\n"
        lines += [head, "\n| Argument | Takes | If left out | |\n|---|---|---|---|\n", *rows]
    return lines


def _elements(key: str, section: type[Section]) -> list[str]:
    """The tables of sections that lists may hold beside other things, each once with all keys that take it."""
    taking: dict[type[Section], list[str]] = {}
    for name, field in section.model_fields.items():
        if element := element_of(field.annotation):
            taking.setdefault(element, []).append(f"`{key}.{name}`")
    lines = []
    for element, names in taking.items():
        rows = [_row(argument, inner) for argument, inner in element.model_fields.items()]
        head = f"\n### {', '.join(names)}: `[{{{', '.join(element.model_fields)}}}]`\n\n{_line(element.__doc__ or '')}\n"
        lines += [head, "\n| Key | Takes | If left out | |\n|---|---|---|---|\n", *rows]
    return lines


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {wanted(field)} | {_default(field)} | {_line(field.description or '')} |\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**must be given**"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _line(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE}")
