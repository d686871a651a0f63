"""The recipe as sites get it: what is trained and how, without where the server's own data lies.

A site's owner allows a recipe by its fingerprint or by who signed it. Both are taken of :func:`covered`: every value that a
site acts on, as it came. What is not covered must be as it is by default (:func:`beyond`), so that nothing else can be asked
with it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from tunesmith.errors import UserError
from tunesmith.recipe import keys
from tunesmith.recipe.paths import AT_SITES, INPUTS

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

PLACES = ("validation", "test", "known_faults", "cache_dir")
"""Keys of ``data:`` that mean something on the server's machine alone."""

WHERE_KEPT = ("data.cache_dir", "training.output_dir", "training.report_to")
"""Keys that say where something is written or told: never a server's to say at a site, whatever its owner allows."""

SECTIONS = ("task", "model", "data", "training", "federation")
"""What a site acts on."""

SAID_AT_SITES = ("data.train", "model.model_name_or_path", "model.processor_name_or_path")
"""Inputs that a recipe may name: the site puts its own in place of the rows, and its owner allows the models."""

WHERE_READ = tuple(key for key in INPUTS if key.partition(".")[0] in SECTIONS and key not in SAID_AT_SITES)
"""Keys that say where something is read: never a server's to say either, be it a file of the site's or an address."""

FINGERPRINT_BYTES = 20
"""As long as git's: a server must not be able to make two recipes of one fingerprint and have the harmless one allowed. That
takes 2^80 tries; with the 8 bytes by which runs are told apart it would take 2^32."""

LONGEST = 2**20
"""Letters of a recipe that travels. One with 25,000 classes has half as many."""
MOST_PARTS = 50_000
"""Words, lists and mappings in it: read, each takes about a kilobyte of memory."""
DEEPEST = 50
"""Lists and mappings in one another."""
MOST_CLASSES = 25_000
"""Classes of a recipe: for each list of them a site keeps a copy of its rows."""


def for_sites(recipe: Recipe, labels: list[str] | None = None) -> str:
    """The YAML that travels; ``labels`` are the classes that all sites share. Of what travelled it is the same again.

    Raises :class:`UserError` for a number that is not finite.
    """
    from tunesmith.recipe import yaml_tree

    recipe = recipe.resolved()
    _check_finite(recipe)
    values: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    data = {key: value for key, value in values["data"].items() if key not in PLACES} | {"train": AT_SITES}
    if labels is not None:
        data["labels"] = labels
    # A site judges by what it holds back, once a round, and keeps no checkpoints.
    data["split"] = {**data.get("split", {}), "validation": 0.0, "test": recipe.federation.holdout}
    training = {key: value for key, value in values.get("training", {}).items() if key not in ("output_dir", "report_to")}
    training |= {"eval_strategy": "no", "load_best_model_at_end": False}
    kept: dict[str, Any] = {key: values[key] for key in ("name", "task", "model", "federation") if key in values}
    return yaml_tree.dump({**kept, "data": data, "training": training})


def read(text: str, *, bounded: bool = True) -> Recipe:
    """A recipe that travelled. It is looked at before it is read: whoever can ask a site can send it any text.

    No tag makes of a value what plain YAML would not: those that would are refused, and all others passed over. ``bounded`` is
    False where the text is the process's own, or was looked at before it came here.

    Raises :class:`UserError` for one that is too large, or has anchors or keys that stand twice, none of which
    :func:`for_sites` writes; :class:`RecipeError` where a version that knows other keys wrote it.
    """
    from tunesmith.recipe import Recipe
    from tunesmith.recipe.yaml_tree import parse

    try:
        if bounded:
            _check_plain(text)
        tree = parse(text)
        if tree.flaws:
            first = tree.flaws[0]
            raise UserError(f"line {first.line}: {first.what}\n    → {first.fix}")
        return Recipe.from_dict(tree.values, check_paths=False)
    except (ValueError, ArithmeticError, RecursionError) as error:  # a number of many thousand digits, a letter that is none
        raise UserError(f"a value cannot be read ({type(error).__name__})\n    → Write one that a recipe takes.") from error


@functools.lru_cache(maxsize=8)
def covered(text: str, *, bounded: bool = True) -> bytes:
    """What fingerprints and signatures are taken of: all that a site acts on but the classes, the defaults written out.

    The classes are left out because they are settled with the sites, after the recipe was allowed; the name says nothing.
    Raises :class:`UserError` for a recipe that is none, or has a number or a letter that does not travel.
    """
    recipe = read(text, bounded=bounded)
    _check_finite(recipe)
    values = recipe.model_dump(mode="json")
    chosen = {key: values[key] for key in SECTIONS}
    chosen["data"] = {key: value for key, value in chosen["data"].items() if key != "labels"}
    try:
        return json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # half of a surrogate pair, which YAML can write and UTF-8 cannot
        raise UserError(
            f"the recipe has a value that UTF-8 cannot write ({error})\n    → Write it in other letters."
        ) from error


def beyond(recipe: Recipe) -> list[str]:
    """Dotted keys that are set and have nothing to say to a site: no recipe that is federated has any of them as it travels."""
    values = recipe.model_dump(exclude_defaults=True)
    sections = [name for name in type(recipe).model_fields if name not in (*SECTIONS, "name")]
    return [key for key in (*sections, *WHERE_KEPT, *WHERE_READ) if keys.has(values, key)]


def fingerprint(text: str, *, bounded: bool = True) -> str:
    """40 hexadecimal digits by which a site's owner allows a recipe: of :func:`covered`."""
    return hashlib.blake2b(covered(text, bounded=bounded), digest_size=FINGERPRINT_BYTES).hexdigest()


@functools.lru_cache(maxsize=8)
def _check_plain(text: str) -> None:
    """Of the YAML's events, before anything is made of them: 400 letters with aliases can name more than a memory holds."""
    import yaml

    fix = "A recipe as it travels is shorter and plainer: see what `tunesmith federation sign --show` prints."
    if len(text) > LONGEST:
        raise UserError(f"it has {len(text):,} letters, and a site reads {LONGEST:,} at most\n    → {fix}")
    depth = parts = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
                raise UserError(f"{where}anchors and aliases are not read at a site\n    → Write the value out.")
            parts += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if parts > MOST_PARTS or depth > DEEPEST:
                what = f"more than {MOST_PARTS:,} values" if parts > MOST_PARTS else f"more than {DEEPEST} levels"
                raise UserError(f"it has {what}, which a site does not read\n    → {fix}")
    except yaml.YAMLError:
        return  # which reading it explains better


def _check_finite(recipe: Recipe) -> None:
    """Free-form sections take any number. JSON has none that is not finite: as ``null`` it would pass for another recipe."""
    for key, value in keys.scalars(recipe.model_dump()):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{key}: found {value}, which does not travel to sites\n    → Write a finite number, or leave it out."
            )
