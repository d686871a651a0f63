"""The dotted keys of a recipe: which there are, what each wants, and which is meant by a name that is none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunesmith.errors import nearest
from tunesmith.recipe.base import alternatives, element_of, section_of, variants_of
from tunesmith.recipe.hf_names import FORMER_ARGUMENTS, SAME_AS, TRAINING_ARGUMENTS


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key that holds a value, with its field, in the order of the sections."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield prefix + name, field
        else:
            yield from leaves(section, f"{prefix}{name}.")


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that holds a section: ``data``, ``data.split`` …"""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield prefix + name
            yield from sections(section, f"{prefix}{name}.")


def scalars(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested mappings and lists that is neither, with its dotted key; items are counted from 0.

    >>> list(scalars({"data": {"augment": [{"p": 0.5}]}, "task": "ner"}))
    [('data.augment.0.p', 0.5), ('task', 'ner')]
    """
    if isinstance(values, Mapping):
        inner: Iterable[tuple[Any, Any]] = values.items()
    elif isinstance(values, list | tuple):
        inner = enumerate(values)
    else:
        yield prefix, values
        return
    for name, value in inner:
        yield from scalars(value, f"{prefix}.{name}" if prefix else str(name))


def get(values: Any, key: str) -> Any:
    """The value at a dotted key of nested mappings, or None where there is none.

    >>> get({"data": {"train": "a.csv"}}, "data.train"), get({}, "data.train")
    ('a.csv', None)
    """
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def has(values: Any, key: str) -> bool:
    """Whether the dotted key is written in nested mappings."""
    parent, _, name = key.rpartition(".")
    found = get(values, parent) if parent else values
    return isinstance(found, dict) and name in found


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Write a value at a dotted key of nested mappings, making those that are missing.

    >>> values = {}
    >>> put(values, "data.split.by", "time")
    >>> values
    {'data': {'split': {'by': 'time'}}}
    """
    *parents, name = key.split(".")
    for part in parents:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[name] = value


def suggest(model: type[BaseModel], key: str) -> tuple[str, str | None]:
    """What to write instead of an unknown key, and the key of ours that was meant, if one is clear.

    >>> from tunesmith.recipe import Recipe
    >>> suggest(Recipe, "training.lerning_rate")
    ('did you mean training.learning_rate?', 'training.learning_rate')
    >>> suggest(Recipe, "data.learning_rate")
    ('did you mean training.learning_rate? it stands under training:', 'training.learning_rate')
    >>> suggest(Recipe, "training.no_cuda")
    ('write training.use_gpu: false', None)
    """
    section, _, name = key.rpartition(".")
    known = dict(leaves(model))
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    if elsewhere:
        return _meant(elsewhere[0], section), elsewhere[0]
    theirs = {**FORMER_ARGUMENTS, **TRAINING_ARGUMENTS} if section in ("", "training") else {}
    if name in theirs:
        return theirs[name], None
    if name in SAME_AS:
        return _meant(SAME_AS[name], section), SAME_AS[name]
    anywhere = {other.rpartition(".")[2]: other for other in (*known, *sections(model))}
    beside = {other.rpartition(".")[2]: other for other in (*known, *sections(model)) if other.rpartition(".")[0] == section}
    words = name.lower().replace("-", "_")
    for names in ({**theirs, **beside}, anywhere):
        near = nearest(words, names)
        if near in theirs and near not in beside:
            return theirs[near], None
        if near:
            return _meant(names[near], section), names[near]
    return f"remove it; {section or 'a recipe'} has " + ", ".join(beside), None


def _meant(key: str, section: str) -> str:
    parent = key.rpartition(".")[0]
    where = "" if parent == section else f" it stands under {parent}:" if parent else " it stands at the top, in no section"
    return f"did you mean {key}?{where}"


def wanted(field: FieldInfo) -> str:
    """What a field takes, in words.

    >>> from tunesmith.recipe.training import TrainingSection
    >>> wanted(TrainingSection.model_fields["learning_rate"])
    'a number above 0'
    >>> wanted(TrainingSection.model_fields["eval_steps"])
    'a whole number of at least 1, or null'
    >>> from tunesmith.recipe.suites import RobustnessSection
    >>> wanted(RobustnessSection.model_fields["severities"])
    'a list of whole numbers of at least 1 and at most 5'
    """
    return _words(field.annotation, field.metadata)


def choices(annotation: Any) -> list[str]:
    """The words that a field takes, where it takes only certain ones."""
    return [str(word) for kind in alternatives(annotation) if get_origin(kind) is Literal for word in get_args(kind)]


def _words(annotation: Any, metadata: list[Any]) -> str:
    kinds = alternatives(annotation)
    words = [_one(kind, metadata) for kind in kinds if kind is not type(None)]
    text = " or ".join(words)
    return f"{text}, or null" if type(None) in kinds else text


def _one(kind: Any, metadata: list[Any]) -> str:
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _bounds(metadata)
    if kind in (bool, str):
        return "true or false" if kind is bool else "text"
    origin = get_origin(kind)
    if origin is Literal:
        words = [str(word) for word in get_args(kind)]
        return f"one of {', '.join(words)}" if len(words) > 1 else words[0]
    if origin is list:
        inner = get_args(kind)[0]
        bounds = [bound for one in getattr(inner, "__metadata__", ()) for bound in getattr(one, "metadata", [one])]
        inner = get_args(inner)[0] if bounds else inner
        if named := variants_of(kind):
            return "a list of sections, each with a name out of " + ", ".join(named)
        if section := element_of(kind):
            return "a list of sections of " + ", ".join(section.model_fields)
        if inner in (int, float):
            return ("a list of whole numbers" if inner is int else "a list of numbers") + _bounds(bounds)
        return "a list of texts" if inner is str else f"a list of words out of {', '.join(choices(inner))}"
    if origin is dict:
        value = get_args(kind)[1]
        return "a mapping of names to " + {str: "texts", float: "numbers"}.get(value, "values")
    if hasattr(kind, "__metadata__"):
        return _one(get_args(kind)[0], list(kind.__metadata__))
    return "a section"


def _bounds(metadata: list[Any]) -> str:
    low = high = ""
    for bound in metadata:
        match bound:
            case annotated_types.Ge(ge):
                low = f"of at least {ge}"
            case annotated_types.Gt(gt):
                low = f"above {gt}"
            case annotated_types.Le(le):
                high = f"at most {le}"
            case annotated_types.Lt(lt):
                high = f"below {lt}"
    both = " and ".join(part for part in (low, high) if part)
    return f" {both}" if both else ""
