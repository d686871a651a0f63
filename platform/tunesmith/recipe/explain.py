"""Turns what pydantic says of a recipe into mistakes that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tunesmith.errors import Mistake, nearest
from tunesmith.recipe.base import Section, element_of, section_of, variants_of
from tunesmith.recipe.data import MIXED, UNLISTED
from tunesmith.recipe.keys import choices, suggest, wanted
from tunesmith.recipe.yaml_tree import Keys, Tree


@dataclass(frozen=True)
class Explained:
    """A mistake, and the keys about which nothing more should be said."""

    mistake: Mistake
    keys: Keys
    """The way to the value that is wrong."""
    silences: tuple[str, ...]
    """Dotted keys whose value is not known because of it."""


def explain(model: type[BaseModel], errors: Sequence[ErrorDetails], tree: Tree, file: str) -> list[Explained]:
    """One mistake for each value that pydantic refused; the branches of a union are one mistake."""
    refused: dict[Keys, ErrorDetails] = {}
    for error in errors:
        keys = way(error["loc"], tree.values)
        if not (error["type"] == "string_type" and _holds_sections(model, keys) and isinstance(error["input"], dict)):
            refused.setdefault(keys, error)
    inner = {keys[:depth] for keys in refused for depth in range(1, len(keys))}
    return [_explain(model, keys, error, tree, file) for keys, error in refused.items() if keys not in inner]


def way(loc: Sequence[str | int], values: Any) -> Keys:
    """The part of pydantic's location that is in the recipe, without the names of union branches."""
    keys: list[str | int] = []
    for index, part in enumerate(loc):
        if (isinstance(values, dict) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        ):
            values = values[part]  # type: ignore[index]
            keys.append(part)
        elif index == len(loc) - 1 and isinstance(values, dict) and not _is_branch(part, loc[:index], values):
            keys.append(part)
    return tuple(keys)


def _is_branch(part: str | int, before: Sequence[str | int], values: dict[str, Any]) -> bool:
    """Whether it names a branch of a union: a type, or the name of the section that an element of a list is."""
    named = bool(before) and isinstance(before[-1], int) and part == values.get("name")
    return named or str(part).startswith(("[", "list[", "dict[", "literal["))


def dotted(keys: Keys) -> str:
    """``("data", "labels", 0)`` as ``data.labels[0]``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def shown(value: Any) -> str:
    """A value as YAML would have it, cut to a readable length.

    >>> shown(True), shown(None), shown("abc"), shown({"a": 1})
    ('true', 'null', "'abc'", "{'a': 1}")
    """
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _explain(model: type[BaseModel], keys: Keys, error: ErrorDetails, tree: Tree, file: str) -> Explained:
    key = dotted(keys)
    mark = tree.mark(keys)
    place = (mark.source or file, mark.line)
    told = _domain(model, keys, error, tree.values) or _element(model, keys, error, tree.values)
    if told:
        return Explained(Mistake(key, *told, *place), keys, (key,))
    if error["type"] == "extra_forbidden":
        fix, meant = suggest(model, key)
        silenced = (key, meant) if meant else (key,)
        return Explained(Mistake(key, "there is no such key", fix, *place), keys, silenced)
    field = _field(model, keys)
    if error["type"] == "missing":
        key, field = _required(key, field)
        what, fix = "it is missing", f"add {key}: {_first_sentence(field)}"
    elif field is not None and section_of(field.annotation) is not None:
        inner = next(iter(section_of(field.annotation).model_fields))  # type: ignore[union-attr]
        what = f"found {shown(error['input'])} where a section of keys belongs"
        fix = f"write the keys under it, such as {key}.{inner}"
    elif field is None or error["type"] in ("value_error", "assertion_error"):
        what, fix = str(error["msg"]).removeprefix("Value error, "), "correct the value"
    else:
        what, fix = _wrong_value(key, field, error["input"], len(keys) and isinstance(keys[-1], int), error["type"])
    return Explained(Mistake(key, what, fix, *place), keys, (key,))


def _element(model: type[BaseModel], keys: Keys, error: ErrorDetails, values: Any) -> tuple[str, str] | None:
    """What is wrong in a list of named sections, and what to write; None where the key is in no such list."""
    at = next((n for n, key in enumerate(keys) if isinstance(key, int)), len(keys))
    field = _field(model, keys[:at])
    named = variants_of(field.annotation) if field else {}
    if not named:
        return None
    for key in keys[: at + 1]:
        values = values[key]
    if len(keys) > at + 1:
        return _argument(named[values["name"]], keys[at + 1 :], error)
    name = values.get("name") if isinstance(values, dict) else values
    if not isinstance(name, str):
        return f"found {shown(values)}, which has no name", "write a list, each with a name out of " + ", ".join(named)
    near = name if name in named else nearest(name.lower().replace("-", "_"), named)
    if isinstance(values, str) or at == len(keys):
        return f"found {shown(values)} where a list of sections belongs", f"write [{{name: {near or next(iter(named))}}}]"
    if name in named:
        return str(error["msg"]).removeprefix("Value error, "), "correct the values"
    return f"there is no {name!r}", f"did you mean {near}?" if near else "write one of " + ", ".join(named)


def _holds_sections(model: type[BaseModel], keys: Keys) -> bool:
    """Whether it is an element of a list that may hold sections: that it is no text then says nothing."""
    field = _field(model, keys[:-1]) if keys and isinstance(keys[-1], int) else None
    return field is not None and element_of(field.annotation) is not None


def _domain(model: type[BaseModel], keys: Keys, error: ErrorDetails, values: Any) -> tuple[str, str] | None:
    """What is wrong with data sets that have names, and what to write; None where the key is of something else."""
    if error["type"] == UNLISTED:
        return str(error["msg"]), "put a dash before it, as before the names of a list: - {name: clinic, path: clinic.csv}"
    if error["type"] == MIXED:
        return str(error["msg"]), "give each of them a name, or none: [{name: clinic, path: clinic.csv}, …]"
    at = next((n for n, key in enumerate(keys) if isinstance(key, int)), len(keys))
    field = _field(model, keys[:at])
    section = element_of(field.annotation) if field else None
    if section is None or len(keys) < at + 2:
        return None
    for key in keys[: at + 1]:
        values = values[key]
    key = str(keys[at + 1])
    inner = section.model_fields.get(key) if isinstance(values, dict) else None
    if inner is None:
        near = nearest(key.lower(), section.model_fields)
        return f"a {section.CALLED} has no {key!r}", f"did you mean {near}?" if near else "it has " + ", ".join(
            section.model_fields
        )
    if error["type"] == "missing":
        return f"the {section.CALLED} has no {key}", f"add {key}: {_first_sentence(inner)}"
    if error["type"] == "string_pattern_mismatch":
        fix = f"write letters, digits, dots, dashes and underscores, such as {safe_name(str(error['input']))}"
        return f"found {shown(error['input'])}, which is no name for a domain", fix
    return _wrong_value(key, inner, error["input"], len(keys) > at + 2, error["type"])


def _argument(section: type[Section], keys: Keys, error: ErrorDetails) -> tuple[str, str]:
    name, argument = get_args(section.model_fields["name"].annotation)[0], str(keys[0])
    field = section.model_fields.get(argument)
    if field is None:
        near = nearest(argument.lower(), section.model_fields)
        fix = f"did you mean {near}?" if near else "it has " + ", ".join(n for n in section.model_fields if n != "name")
        return f"{name} has no argument {argument!r}", fix
    if error["type"] == "missing":
        return f"{name} needs {argument}", f"add {argument}: {_first_sentence(field)}"
    return _wrong_value(argument, field, error["input"], len(keys) > 1, error["type"])


def _required(key: str, field: FieldInfo | None) -> tuple[str, FieldInfo | None]:
    """The first key that a missing section must have; a plain value is that itself."""
    section = section_of(field.annotation) if field else None
    for name, inner in section.model_fields.items() if section else ():
        if inner.is_required():
            return f"{key}.{name}", inner
    return key, field


def _wrong_value(key: str, field: FieldInfo, found: Any, element: object, kind: str) -> tuple[str, str]:
    want = wanted(field)
    what = f"found {shown(found)}, which is not {'fit for ' if element else ''}{want}"
    if kind == "string_pattern_mismatch":
        what = f"found {shown(found)}, which is no name for a folder"
        return what, f"write letters, digits, dots, dashes and underscores, such as {safe_name(str(found))}"
    near = nearest(str(found).lower(), choices_of(field))
    if near:
        return what, f"did you mean {near}?"
    hint = _hint(key, found, want)
    if hint:
        return what, hint
    default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    if default is None or default in ([], {}):
        return what, f"write {want}" if field.is_required() else f"write {want}, or leave it out"
    return what, f"write {want}; the default is {shown(default).strip(chr(39))}"


def choices_of(field: FieldInfo) -> list[str]:
    """The words a field or the elements of its list may be."""
    inner = getattr(field.annotation, "__args__", ())
    return choices(field.annotation) or [word for kind in inner for word in choices(kind)]


def _hint(key: str, found: Any, want: str) -> str | None:
    if isinstance(found, str) and "number" in want:
        if re.fullmatch(r"[-+]?\d+,\d+", found.strip()):
            return f"write {found.strip().replace(',', '.')}, with a point"
        if re.fullmatch(r"\d+(\.\d+)?\s*%", found.strip()):
            return f"write {float(found.strip(' %')) / 100:g}"
    if key == "training.warmup_steps" and isinstance(found, float) and 0 < found < 1:
        return f"a share of the updates goes into training.warmup_ratio: {found:g}"
    if key == "training.fsdp":
        return "write true: it shards parameters, gradients and optimizer state (FSDP2)"
    return None


def _field(model: type[BaseModel], keys: Keys) -> FieldInfo | None:
    field: FieldInfo | None = None
    current: type[BaseModel] | None = model
    for key in keys:
        if current is None:
            break
        field = current.model_fields.get(str(key))
        current = section_of(field.annotation) if field else None
    return field


def _first_sentence(field: FieldInfo | None) -> str:
    return for_people(field.description or "").partition(". ")[0].rstrip(".") if field else ""


def for_people(description: str) -> str:
    """A field's docstring as one line of a YAML comment or of Markdown.

    >>> for_people("``auto``, or\\n    None")
    '`auto`, or null'
    """
    return re.sub(r"\bNone\b", "null", " ".join(description.split()).replace("``", "`"))


def safe_name(text: str) -> str:
    """The text as a name that is safe for a folder everywhere.

    >>> safe_name("my run/2 (ä)"), safe_name("..")
    ('my-run-2', 'run')
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80].rstrip("-._")
    return name or "run"
