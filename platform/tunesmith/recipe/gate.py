"""A release gate: rules over the measures of an evaluation, read from a YAML file of its own.

::

    baseline: runs/digits-in-production
    rules:
      - {measure: accuracy, min: 0.9}
      - {measure: "recall/*", min: 0.8}                 # the worst class
      - {measure: "slices/scanner=*/accuracy", min: 0.85}
      - {measure: accuracy, margin: 0.01}               # not more than a point below the baseline
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from tunesmith.errors import Mistake, RecipeError, UserError, nearest
from tunesmith.recipe import suite_names, yaml_tree
from tunesmith.recipe.base import Section
from tunesmith.recipe.explain import dotted, explain
from tunesmith.recipe.paths import neighbours
from tunesmith.recipe.yaml_tree import Tree

EXAMPLE = "`tunesmith gate --example RUN` writes one"

Undecided = Literal["fail", "warn"]


class Rule(Section):
    """What one measure, or every measure of a pattern, has to hold."""

    CALLED: ClassVar[str] = "rule"

    measure: str = Field(min_length=1)
    """A measure, such as ``accuracy``, ``recall/cat``, ``slices/scanner=old/f1``, ``retention/old/drop`` or
    ``robustness/typos/accuracy``. ``*`` stands for anything: all that fit must hold, so the worst one decides."""

    min: float | None = None
    """The least that it may be."""

    max: float | None = None
    """The most that it may be."""

    margin: float | None = Field(default=None, ge=0)
    """How much worse than the baseline's it may be, in its own unit (non-inferiority)."""

    by: Literal["interval", "value"] = "interval"
    """``interval`` is judged by the pessimistic end: what chance alone may have brought is no reason to release. ``value`` by
    the value itself, whatever the number of examples."""

    undecided: Undecided | None = None
    """What becomes of the rule where its interval lies on both sides of the limit; that of the gate where null."""

    better: Literal["more", "less"] | None = None
    """Which way is better, for a margin; null goes by the measure's name."""

    min_examples: int = Field(default=1, ge=1)
    """Parts of a pattern (slices, classes, groups) with fewer examples are named, and not judged."""

    name: str | None = None
    """What it is called in the reports; the rule itself where null."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Rule:
        if self.min is None and self.max is None and self.margin is None:
            raise ValueError("the rule has no limit: add min, max or margin")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing can be both")
        return self


class Gate(Section):
    """What a model has to hold before it is released."""

    baseline: str | None = None
    """What margins are against: a run (folder, URI, name), an evaluation's folder, or ``base`` for the run's own pre-trained
    model. The command's ``--baseline`` comes first."""

    undecided: Undecided = "fail"
    """What becomes of a rule that the examples cannot settle: ``fail``, or ``warn`` to let it through with a warning."""

    rules: list[Rule] = Field(min_length=1)
    """All of them have to hold."""

    _file: str = PrivateAttr("Python")
    _lines: dict[int, int | None] = PrivateAttr(default_factory=dict)

    @property
    def file(self) -> str:
        """Where it was read from."""
        return self._file

    @property
    def suites(self) -> list[str]:
        """The suites of the test bench that rules ask for, ours and those of installed packages.

        >>> rules = [{"measure": "robustness/worst_case", "min": 0.5}, {"measure": "accuracy", "min": 0.9}]
        >>> load_gate({"rules": rules}).suites
        ['robustness']
        """
        known = {*suite_names.SUITES, *suite_names.brought(suite_names.SUITE_GROUP)}
        return [name for name in dict.fromkeys(rule.measure.partition("/")[0] for rule in self.rules) if name in known]

    @property
    def has_margins(self) -> bool:
        """Whether a rule asks for a baseline."""
        return any(rule.margin is not None for rule in self.rules)

    def mistake(self, index: int, what: str, fix: str, key: str = "measure") -> Mistake:
        """A mistake in a rule, with the line that it stands on."""
        return Mistake(f"rules[{index}].{key}", what, fix, self._file, self._lines.get(index))


def load_gate(given: Gate | Mapping[str, Any] | str | os.PathLike[str]) -> Gate:
    """The gate of a YAML file or of plain values. Raises :class:`RecipeError` with every mistake, :class:`UserError`."""
    if isinstance(given, Gate):
        return given
    if isinstance(given, Mapping):
        return _build(Tree(values=dict(given)), "Python")
    file = os.fspath(given)
    tree = yaml_tree.parse(_read(file))
    if tree.flaws:
        raise RecipeError([_flaw(flaw, file) for flaw in tree.flaws], of="gate")
    return _build(tree, file)


def _build(tree: Tree, file: str) -> Gate:
    try:
        gate = Gate.model_validate(tree.values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        known = [one for one in errors if not (one["type"] == "extra_forbidden" and len(one["loc"]) == 1)]
        mistakes = [_unknown(str(one["loc"][0]), tree, file) for one in errors if one not in known]
        mistakes += [one.mistake for one in explain(Gate, known, tree, file)]
        raise RecipeError(sorted(mistakes, key=lambda one: one.line or 0), of="gate") from None
    gate._file = file
    gate._lines = {index: tree.mark(("rules", index)).line for index in range(len(gate.rules))}
    return gate


def _unknown(key: str, tree: Tree, file: str) -> Mistake:
    near = nearest(key.lower(), Gate.model_fields)
    fix = f"did you mean {near}?" if near else "a gate has " + ", ".join(Gate.model_fields)
    return Mistake(key, "there is no such key", fix, file, tree.mark((key,)).line)


def _flaw(flaw: yaml_tree.Flaw, file: str) -> Mistake:
    what, fix = flaw.what, flaw.fix
    if not flaw.keys and what.startswith("the recipe"):
        what, fix = what.replace("recipe", "gate"), EXAMPLE
    return Mistake(dotted(flaw.keys) or "gate", what, fix, file, flaw.line)


def _read(file: str) -> str:
    if "://" in file:
        from tunesmith import storage

        return storage.read_text(file)
    try:
        return Path(file).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = [name for name in neighbours(str(Path(file).absolute()), limit=20) if name.endswith((".yaml", ".yml"))]
        near = f"beside it: {', '.join(beside[:5])}" if beside else EXAMPLE
        raise UserError(f"there is no gate {file}\n    → {near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the gate {file} cannot be read: {error}\n    → Give a YAML file; {EXAMPLE}") from None
