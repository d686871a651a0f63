"""What cannot be seen in one field of the test bench's keys: names that there are not, settings without their suite."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from tunesmith.recipe import behaviour as behaviour_file
from tunesmith.recipe import loss_names, suite_names, task_names
from tunesmith.recipe.checks import Finding
from tunesmith.recipe.explain import dotted
from tunesmith.recipe.paths import absolute, is_uri
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.suite_names import IMAGES, PERTURBATION_GROUP, SUITE_GROUP, SUITES, TEXTS


def suites(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Every suite exists, and none is named twice."""
    seen: set[str] = set()
    brought: dict[str, str] | None = None
    for index, name in enumerate(recipe.evaluation.suites):
        at = ("evaluation", "suites", index)
        if name in seen:
            yield Finding(at, f"the suite {name} is named twice", "name each suite once")
        seen.add(name)
        if name in SUITES or suite_names.is_own(name):
            continue
        brought = suite_names.brought(SUITE_GROUP) if brought is None else brought
        if name not in brought:
            yield Finding(at, *suite_names.unknown(name, [*SUITES, *brought], "suite"))


def robustness(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Perturbations exist and fit the task's first input; the settings have their suite."""
    section, facts = recipe.evaluation.robustness, task_names.KNOWN.get(recipe.task)
    every = (*TEXTS, *IMAGES)
    fitting = {"image": IMAGES, "tokens": suite_names.WORDS}.get(facts.roles[0], TEXTS) if facts else every
    brought: dict[str, str] | None = None
    for index, name in enumerate(section.kinds):
        at = ("evaluation", "robustness", "kinds", index)
        if name in fitting or suite_names.is_own(name):
            continue
        brought = suite_names.brought(PERTURBATION_GROUP) if brought is None else brought
        if name in every:
            what = f"{name} does not fit the examples of {recipe.task}"
            yield Finding(at, what, "write one of " + ", ".join(fitting), ("task",))
        elif name not in brought:
            yield Finding(at, *suite_names.unknown(name, [*fitting, *brought], "perturbation"))
    if not section.severities:
        yield Finding(("evaluation", "robustness", "severities"), "the list is empty", "write [1, 3, 5]")
    if "robustness" not in suite_names.asked(recipe.evaluation):
        yield from _idle(recipe, "robustness")


def fairness(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """There is somebody to compare, once each, and a class that exists."""
    section, at = recipe.evaluation.fairness, ("evaluation", "fairness")
    if "fairness" in recipe.evaluation.suites and not section.groups:
        yield Finding((*at, "groups"), "nobody is named to compare", "name columns of the data: groups: [COLUMN]")
    for index, name in enumerate(section.groups):
        if name in section.groups[:index]:
            yield Finding((*at, "groups", index), f"the column {name} is named twice", "name each column once")
    if section.positive is not None and recipe.data.labels:
        wrong = loss_names.unknown_class(section.positive, recipe.data.labels)
        if wrong:
            yield Finding((*at, "positive"), *wrong, ("data.labels",))
    if "fairness" not in suite_names.asked(recipe.evaluation):
        yield from _idle(recipe, "fairness", "name columns in evaluation.fairness.groups, or remove it")


def behaviour(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """There are tests to run."""
    if "behaviour" in recipe.evaluation.suites and recipe.evaluation.behaviour is None:
        yield Finding(("evaluation", "suites"), "behaviour has no tests", "name their file: evaluation.behaviour: tests.yaml")


def weak_slices(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The settings have their suite."""
    if "weak_slices" not in suite_names.asked(recipe.evaluation):
        yield from _idle(recipe, "weak_slices")


def out_of_distribution(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """There is data to ask about."""
    if "out_of_distribution" in recipe.evaluation.suites and not recipe.evaluation.out_of_distribution:
        fix = "name it: evaluation.out_of_distribution: {other: FILE}"
        yield Finding(("evaluation", "suites"), "out_of_distribution has no data", fix)


def privacy(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The settings have their suite."""
    if "privacy" not in suite_names.asked(recipe.evaluation):
        yield from _idle(recipe, "privacy")


def files(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """A local file of behavioural tests has no mistakes, as far as can be told without the data."""
    named = recipe.evaluation.behaviour
    place = None if named is None else absolute(named, recipe.base_dir)
    if place is None or is_uri(place) or not os.path.isfile(place):
        return
    try:
        text = Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(("evaluation", "behaviour"), f"{place} cannot be read: {error}", "save it as UTF-8 text")
        return
    for flaw in behaviour_file.parse(text)[1]:
        what = f"{place}:{flaw.line}: {dotted(flaw.keys) or 'tests'}: {flaw.what}"
        yield Finding(("evaluation", "behaviour"), what, flaw.fix)


def _idle(recipe: Recipe, name: str, fix: str = "") -> Iterator[Finding]:
    """Settings of a suite that is not run."""
    section = getattr(recipe.evaluation, name)
    for key, field in type(section).model_fields.items():
        if getattr(section, key) != field.get_default(call_default_factory=True):
            what = f"the suite {name} is not run"
            yield Finding(("evaluation", name, key), what, fix or f"add evaluation.suites: [{name}], or remove it")


CHECKS = (suites, robustness, fairness, behaviour, weak_slices, out_of_distribution, privacy)
