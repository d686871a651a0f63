"""Reads a recipe: YAML and overrides into one tree, the tree into a :class:`Recipe`, and every mistake into one error."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tunesmith.errors import Mistake, RecipeError, UserError, nearest
from tunesmith.recipe import (
    checks,
    domain_checks,
    federation_checks,
    forgetting_checks,
    group_checks,
    keys,
    search_checks,
    suite_checks,
    yaml_tree,
)
from tunesmith.recipe.explain import Explained, dotted, explain, safe_name, way
from tunesmith.recipe.paths import (
    AT_SITES,
    INPUTS,
    absolute,
    absolute_model,
    at_hub,
    each_augment_model,
    each_place,
    is_uri,
    neighbours,
)
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.resolve import located
from tunesmith.recipe.yaml_tree import Keys, Mark, Tree

COMMAND_LINE = "command line"
MANY_PASSES = 4
"""How often mistaken values are set aside to look for more; each pass can only uncover deeper ones."""

STAND_INS = {"task": "text-classification", "model.model_name_or_path": "stand-in", "data.train": "hf://stand-in"}
"""Values for required keys that are missing or mistaken, so that the other checks can be made."""


def load(path: str | os.PathLike[str], overrides: Sequence[str] = (), *, check_paths: bool = True) -> Recipe:
    """See :meth:`Recipe.load`."""
    file = os.fspath(path)
    tree = yaml_tree.parse(_read(file))
    if not tree.values and tree.flaws:
        raise RecipeError([_flaw(flaw, file) for flaw in tree.flaws])
    base_dir = _folder_of(file)
    name, why = _default_name(file, base_dir)
    apply(tree, overrides, COMMAND_LINE)
    recipe = build(tree, file=file, base_dir=base_dir, check_paths=check_paths, name=(name, why))
    recipe._path = file
    return recipe


def from_dict(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    base_dir: str | os.PathLike[str] | None = None,
    check_paths: bool = True,
) -> Recipe:
    """See :meth:`Recipe.from_dict`."""
    tree = Tree(values=_plain(values))
    apply(tree, overrides, "override")
    base = os.fspath(base_dir) if base_dir is not None else os.getcwd()
    return build(tree, file="Python", base_dir=base if is_uri(base) else os.path.abspath(base), check_paths=check_paths)


def override(recipe: Recipe, overrides: Sequence[str], *, check_paths: bool = True) -> Recipe:
    """See :meth:`Recipe.override`. Values that were derived are derived anew."""
    tree, kept = _rewritten(recipe)
    apply(tree, overrides, "override")
    return _rebuilt(recipe, tree, kept, check_paths)


def with_values(recipe: Recipe, values: Mapping[str, Any], *, without: Sequence[str] = (), check_paths: bool = True) -> Recipe:
    """The same recipe with other values by dotted key, and without the sections and keys ``without``.

    A mapping for a section changes the keys that it names; relative inputs start from the recipe's folder, as those that are
    written in it. Raises :class:`RecipeError` with every mistake.
    """
    tree, kept = _rewritten(recipe)
    for key in without:
        _remove(tree.values, key)
    sections = set(keys.sections(Recipe))
    for key, value in values.items():
        there: dict[str, Any] = {}
        keys.put(there, key, _plain(value))
        _write(tree, key, keys.get(located(recipe, there), key), Tree(), "override", sections)
    return _rebuilt(recipe, tree, kept, check_paths)


def _rewritten(recipe: Recipe) -> tuple[Tree, dict[str, str]]:
    """What was set in a recipe, as it would be written, and where each value came from; derived ones are left out."""
    tree = Tree()
    written = recipe.model_dump(exclude_unset=True)
    kept: dict[str, str] = {}
    for key, _ in keys.leaves(Recipe):
        origin = recipe._provenance.get(key, "default")
        if keys.has(written, key) and (key == "name" or not origin.startswith("derived")):
            keys.put(tree.values, key, keys.get(written, key))
            kept[key] = origin
    return tree, kept


def _rebuilt(recipe: Recipe, tree: Tree, kept: Mapping[str, str], check_paths: bool) -> Recipe:
    changed = build(tree, file="Python", base_dir=recipe.base_dir, check_paths=check_paths)
    fresh = {key for key, origin in changed._provenance.items() if origin == "override"}
    changed._provenance.update({key: origin for key, origin in kept.items() if key not in fresh})
    changed._path = recipe.path
    return changed


def apply(tree: Tree, overrides: Sequence[str], source: str) -> None:
    """Write ``key=value`` overrides into the tree; a section takes a mapping, whose keys are each written."""
    sections = set(keys.sections(Recipe))
    for text in overrides:
        key, equals, written = text.partition("=")
        key = key.strip()
        if not equals or not key or not all(key.split(".")):
            what = "an override is written as key=value"
            near = f"such as {key}=…" if equals == "" and key else "such as training.learning_rate=3e-5"
            tree.flaws.append(yaml_tree.Flaw(("overrides", text), what, near, None))
            continue
        value, inner = yaml_tree.parse_value(written)
        tree.flaws.extend(yaml_tree.Flaw((*key.split("."), *flaw.keys), flaw.what, flaw.fix, None) for flaw in inner.flaws)
        if not inner.flaws:
            _write(tree, key, value, inner, source, sections)


def _write(tree: Tree, key: str, value: Any, inner: Tree, source: str, sections: set[str], below: Keys = ()) -> None:
    if key in sections and isinstance(value, dict):
        for name, child in value.items():
            _write(tree, f"{key}.{name}", child, inner, source, sections, (*below, name))
        return
    keys.put(tree.values, key, value)
    at: Keys = tuple(key.split("."))
    for old in [marked for marked in tree.marks if marked[: len(at)] == at]:
        del tree.marks[old]
    for marked, mark in inner.marks.items():
        if marked[: len(below)] == below:
            tree.marks[(*at, *marked[len(below) :])] = Mark(None, mark.text, source)
    tree.marks.setdefault(tuple(_leaf(at).split(".")), Mark(None, None, source))


def build(tree: Tree, *, file: str, base_dir: str, check_paths: bool, name: tuple[str, str] | None = None) -> Recipe:
    """The recipe of a tree. Raises :class:`RecipeError` with all its mistakes, in the order of their lines."""
    _open_sections(tree.values)
    _anchor(tree, base_dir)
    given = {key for key, _ in keys.leaves(Recipe) if keys.has(tree.values, key)}
    if name and "name" not in given:
        tree.values = {"name": name[0], **tree.values}
    at_sites = keys.has(tree.values, "federation") and not keys.has(tree.values, "data.train")
    if at_sites:
        keys.put(tree.values, "data.train", AT_SITES)
    recipe, explained = _validate(tree, file)
    mistakes = [_flaw(flaw, file) for flaw in tree.flaws] + [one.mistake for one in explained]
    silenced = {key for one in explained for key in (*one.silences, _leaf(one.keys))}
    if recipe is not None:
        recipe._base_dir = base_dir
        mistakes += list(_findings(recipe, tree, file, given, silenced, check_paths))
    if mistakes or recipe is None:
        raise RecipeError(sorted(mistakes, key=lambda mistake: (mistake.file != file, mistake.line or 0)))
    origins = {key: _origin(tree.mark(tuple(key.split("."))), file) for key in given}
    derived = {"data.train": "derived: the sites have the rows"} if at_sites else {}
    recipe._provenance = {**({"name": f"derived: {name[1]}"} if name else {}), **derived, **origins}
    return recipe


def _validate(tree: Tree, file: str) -> tuple[Recipe | None, list[Explained]]:
    """The recipe, or one made of the sound values alone, and the mistakes of the others."""
    explained: list[Explained] = []
    values = tree.values
    for _ in range(MANY_PASSES):
        try:
            return Recipe.model_validate(values), explained
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False)
        if not explained and _take_as_written(tree, errors):
            continue
        values = copy.deepcopy(values)
        here = Tree(values, tree.marks)
        known = {one.keys for one in explained}
        found = [one for one in explain(Recipe, errors, here, file) if one.keys not in known]
        explained += found
        for one in found:
            _remove(values, _leaf(one.keys))
        for key, stand_in in STAND_INS.items():
            if not keys.has(values, key):
                keys.put(values, key, stand_in)
    return None, explained


def _take_as_written(tree: Tree, errors: Sequence[Any]) -> bool:
    """Where text is wanted and a bare number or truth value stands, take it as it is written: ``labels: [0, 010, true]``."""
    changed = False
    for error in errors:
        value = error["input"]
        if error["type"] != "string_type" or not isinstance(value, bool | int | float):
            continue
        at = way(error["loc"], tree.values)
        text = tree.marks[at].text if at in tree.marks else None
        parent: Any = tree.values
        for key in at[:-1]:
            parent = parent[key]
        parent[at[-1]] = text or (str(value).lower() if isinstance(value, bool) else str(value))
        changed = True
    return changed


def _findings(
    recipe: Recipe, tree: Tree, file: str, given: set[str], silenced: set[str], check_paths: bool
) -> Iterator[Mistake]:
    parts = (checks, domain_checks, group_checks, forgetting_checks, federation_checks, suite_checks, search_checks)
    every = [check for part in parts for check in part.CHECKS]
    for check in [*every, checks.paths, suite_checks.files, search_checks.places] if check_paths else every:
        for finding in check(recipe, given):
            drawn_from = (_leaf(finding.keys), *finding.involves)
            if not any(key == silent or key.startswith(f"{silent}.") for key in drawn_from for silent in silenced):
                mark = tree.mark(finding.keys)
                yield Mistake(dotted(finding.keys), finding.what, finding.fix, mark.source or file, mark.line)


def _read(file: str) -> str:
    if is_uri(file):
        from tunesmith import storage  # pyarrow, which only a URI needs

        return storage.read_text(file)
    path = Path(file).expanduser()
    if path.is_dir():
        inside = sorted(found.name for found in path.iterdir() if found.suffix in (".yaml", ".yml"))
        hint = f"write {os.path.join(file, nearest('recipe.yaml', inside) or inside[0])}" if inside else "it holds no YAML file"
        raise UserError(f"{file} is a folder, not a recipe: {hint}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = [name for name in neighbours(str(path.absolute()), limit=20) if name.endswith((".yaml", ".yml"))]
        folder = path.absolute().parent
        beside = f"{folder} has {', '.join(near[:5])}" if near else "write one with `tunesmith init TASK`"
        raise UserError(f"there is no recipe {file}: {beside if folder.is_dir() else f'there is no folder {folder}'}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise RecipeError([Mistake("recipe", "this is not UTF-8 text", "save the file as UTF-8", file, line)]) from None
    except OSError as error:
        raise UserError(f"the recipe {file} cannot be read: {error.strerror}") from None


def _folder_of(file: str) -> str:
    """Where relative paths of a recipe's file start; at a URI with its query."""
    if is_uri(file):
        from tunesmith import storage  # pyarrow, which only a URI needs

        return storage.parent(file)
    return os.path.dirname(os.path.abspath(os.path.expanduser(file)))


def _default_name(file: str, base_dir: str) -> tuple[str, str]:
    file, folder = ((one.partition("?")[0] if is_uri(one) else one) for one in (file, base_dir))
    stem = Path(file).stem
    if stem.lower() in ("recipe", "tunesmith", "config"):
        return safe_name(Path(folder).name), "the recipe's folder"
    return safe_name(stem), "the recipe's file name"


def _anchor(tree: Tree, base_dir: str) -> None:
    """Relative paths of the command line start at the working directory, as the shell completes them."""
    for key in INPUTS:
        at = tuple(key.split("."))
        value = keys.get(tree.values, key)
        if value is None or tree.mark(at).source is None or at_hub(key, keys.get(tree.values, "data.format")):
            continue
        anchor = absolute_model if key.startswith("model.") else absolute
        keys.put(tree.values, key, each_place(value, partial(anchor, base=os.getcwd())))
    if keys.has(tree.values, "data.augment") and tree.mark(("data", "augment")).source is not None:
        models = each_augment_model(keys.get(tree.values, "data.augment"), partial(absolute_model, base=os.getcwd()))
        keys.put(tree.values, "data.augment", models)


def _open_sections(values: dict[str, Any]) -> None:
    """A section of which every key is commented out reads as null; it is meant to be there, with its defaults."""
    for section in keys.sections(Recipe):
        if keys.has(values, section) and keys.get(values, section) is None:
            keys.put(values, section, {})


def _leaf(at: Keys) -> str:
    """The dotted key of the field that holds a value: ``data.labels`` for ``("data", "labels", 0)``."""
    known = {key for key, _ in keys.leaves(Recipe)}
    for length in range(1, len(at)):
        if dotted(at[:length]) in known:
            return dotted(at[:length])
    return dotted(at)


def _remove(values: dict[str, Any], key: str) -> None:
    parent, _, name = key.rpartition(".")
    holder = keys.get(values, parent) if parent else values
    if isinstance(holder, dict):
        holder.pop(name, None)


def _origin(mark: Mark, file: str) -> str:
    return mark.source or (f"{file}:{mark.line}" if mark.line else file)


def _flaw(flaw: yaml_tree.Flaw, file: str) -> Mistake:
    if flaw.line is None:
        text = flaw.keys[-1] if flaw.keys[:1] == ("overrides",) else dotted(flaw.keys)
        return Mistake(str(text), flaw.what, flaw.fix, COMMAND_LINE)
    return Mistake(dotted(flaw.keys) or "recipe", flaw.what, flaw.fix, file, flaw.line)


def _plain(value: Any) -> Any:
    """Nested mappings, sequences, paths and sections as YAML would hold them."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(exclude_unset=True))
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
