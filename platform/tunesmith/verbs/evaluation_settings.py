"""How a model is judged where the command line says more than its recipe: suites, and keys of the evaluation section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.recipe.evaluation import EvaluationSection


RETENTION = "retention"
"""No suite, but asked for like one: old data is judged in every verdict of a run whose recipe names some."""
OLD_DATA = "evaluation.retention.data"


def settings_of(
    recipe: Recipe,
    suites: Sequence[str],
    overrides: Sequence[str],
    data: str | Mapping[str, str] | None = None,
    split: str | None = None,
) -> EvaluationSection | None:
    """The recipe's settings with what the command line adds; None where it adds nothing. Raises :class:`UserError`.

    ``data`` and ``split`` are what is judged in place of the run's own test split, if anything.
    """
    if not (suites or overrides):
        return None
    _check(overrides)
    if RETENTION in suites:
        _check_retention(recipe, data, split)
    named = [name for name in dict.fromkeys((*recipe.evaluation.suites, *suites)) if name != RETENTION]
    added = [f"evaluation.suites=[{', '.join(named)}]"] if suites else []
    return recipe.override(*added, *overrides, check_paths=False).resolved().evaluation


def settings_alone(suites: Sequence[str], overrides: Sequence[str]) -> EvaluationSection:
    """The settings of a model that no recipe is known of. Raises :class:`UserError` with what is wrong, and where.

    >>> settings_alone(["robustness"], ["evaluation.robustness.max_examples=50"]).robustness.max_examples
    50
    """
    from pydantic import ValidationError

    from tunesmith.recipe.evaluation import EvaluationSection

    _check(overrides)
    if RETENTION in suites:
        raise UserError("--suite retention: nobody knows which data is old\n    → Give --like RUN, whose recipe names it")
    given: dict[str, Any] = {"suites": list(suites)} if suites else {}
    for one in overrides:
        _put(given, one)
    try:
        return EvaluationSection.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("evaluation", *first["loc"]))
        raise UserError(f"{where}: {first['msg']}\n    → docs/recipe.md lists the keys of evaluation") from None


def _put(given: dict[str, Any], override: str) -> None:
    """One ``evaluation.KEY=VALUE`` into the values. Raises :class:`UserError`, which names the key."""
    import yaml

    key, _, text = override.partition("=")
    _, *path, last = key.split(".")
    place = given
    for depth, part in enumerate(path, start=1):
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            above = ".".join(("evaluation", *path[:depth]))
            raise UserError(f"{key}: {above} is {inner!r:.60}, which has no keys\n    → Give one of them, not both.")
        place = inner
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{key}: {text!r} is no value in YAML\n    → Close its brackets and quotes: {key}=[a, b]") from error


def _check_retention(recipe: Recipe, data: str | Mapping[str, str] | None, split: str | None) -> None:
    if recipe.evaluation.retention.data is None:
        raise UserError(
            f"--suite retention: the run's recipe names no old data\n    → Name it under {OLD_DATA}, and train again"
        )
    if data is not None or split is not None:
        raise UserError(
            "--suite retention: old data is judged with the run's own test split\n"
            f"    → Leave out --{'data' if data is not None else 'split'}"
        )


def _check(overrides: Sequence[str]) -> None:
    for one in overrides:
        if one.partition("=")[0].startswith(OLD_DATA):
            raise UserError(
                f"{one}: the old data of a finished model is what its run's recipe names\n"
                f"    → Name it under {OLD_DATA}, and train again"
            )
        if not one.startswith("evaluation.") or "=" not in one:
            raise UserError(
                f"{one}: of a finished model only keys of evaluation can be set\n"
                "    → Write evaluation.KEY=VALUE, or --data FILE"
            )
