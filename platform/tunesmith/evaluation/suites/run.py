"""Runs suites on a bench, one after the other: each is found by its name, checked before anything is asked, and timed.

A suite is one of ours, one that an installed package brings by an entry point of the group ``tunesmith.suites``, or
``package.module.function`` of the user's own, installed or beside the recipe.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ServiceError, UserError, nearest
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.suites.base import Bench, Checked, Progress, Suite
from tunesmith.recipe import suite_names

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.evaluation.judging import Case, Judged
    from tunesmith.evaluation.targets import Target
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.runs import Run
    from tunesmith.tasks.base import State, Task

log = logging.getLogger(__name__)

LABELS = frozenset({"labels"})
"""What a suite is taken to need where it does not say."""
FAILED = "it failed: "
"""Begins the reason of a suite that was run, and did not get to its end."""


def run_suites(bench: Bench, names: Iterable[str]) -> dict[str, SuiteResult]:
    """What each suite found, by its name (a suite of the user's own by that of its function), in the order of ``names``.

    A suite that needs what the target does not tell, or that fails, costs its own result, which says why, and no other.
    Raises :class:`UserError` where there is no such suite, and :class:`ServiceError` where the target itself is gone.
    """
    found = {}
    for name in names:
        suite = load_suite(name, bench.folders)
        begun = time.monotonic()
        result = _run(bench, name, suite)
        found[name.rpartition(".")[2]] = dataclasses.replace(result, seconds=round(time.monotonic() - begun, 3))
    return found


@dataclass(frozen=True)
class Chosen:
    """The suites that are asked for, held against the data."""

    names: list[str]
    folders: tuple[str, ...]
    """Where functions that are not installed are looked for: beside the recipe, and in the working directory."""

    def run(
        self, judged: Judged, headline: str, target: Target, run: Run | None, progress: Progress | None
    ) -> dict[str, SuiteResult]:
        """What each of them finds of a target whose verdict is made."""
        case = judged.case
        bench = Bench(target, case.split, judged.records, case.scorer.settings, run, progress, headline, self.folders)
        return run_suites(bench, self.names)


def chosen(case: Case, run: Run | None) -> Chosen:
    """The suites that a case's settings ask for.

    Refuses, before anything is computed, suites that there are not, and settings that this data cannot have: raises
    :class:`UserError`, which says which suite, and why.
    """
    folders = (*([run.recipe.base_dir] if run is not None else []), os.getcwd())
    scorer = case.scorer
    names = check_suites(case.split, scorer.task, scorer.state, scorer.settings, folders)
    return Chosen(names, folders)


def check_suites(split: Split, task: Task, state: State, settings: EvaluationSection, folders: tuple[str, ...]) -> list[str]:
    """The names of the suites that are asked for; refused as by :func:`chosen`."""
    names = suite_names.asked(settings)
    for name in names:
        suite = load_suite(name, folders)
        if isinstance(suite, Checked):
            suite.check(split, task, state, settings)
    return names


def failures(found: Mapping[str, SuiteResult]) -> list[str]:
    """A warning for each suite that was asked for, and did not get to its end."""
    said = {name: one.skipped.removeprefix(FAILED) for name, one in found.items() if one.skipped.startswith(FAILED)}
    return [f"The suite {name} failed, and says nothing: {why}" for name, why in said.items()]


def load_suite(name: str, folders: Sequence[str] = ()) -> Suite:
    """The suite of this name. Raises :class:`UserError` where there is none."""
    found: Suite = load(name, suite_names.SUITES, suite_names.SUITE_GROUP, "suite", folders)
    return found


def load(name: str, ours: dict[str, str], group: str, what: str, folders: Sequence[str]) -> Any:
    """The function of this name: one of ours, of an entry point, or by its path. Raises :class:`UserError`."""
    path = ours.get(name) or (name if suite_names.is_own(name) else suite_names.brought(group).get(name))
    if path is None:
        raise UserError(": ".join(suite_names.unknown(name, [*ours, *suite_names.brought(group)], what)))
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    sys.path += [one for one in folders if one and one not in sys.path]  # last: they must not hide an installed package
    try:
        holder = importlib.import_module(module)
    except Exception as error:  # the user's module may fail in any way when it is run
        raise UserError(
            f"the {what} {name}: the module {module} cannot be imported: {type(error).__name__}: {error}\n"
            f"    → Install it, or put it into {' or '.join(folders) or 'the working directory'}"
        ) from error
    function = getattr(holder, attribute, None)
    if not callable(function):
        near = nearest(attribute, [one for one in vars(holder) if not one.startswith("_")])
        meant = f"Did you mean {module}.{near}?" if near else "Name a function of it"
        raise UserError(f"the {what} {name}: {module} has no function {attribute}\n    → {meant}")
    return function


def _run(bench: Bench, name: str, suite: Suite) -> SuiteResult:
    title = name.rpartition(".")[2].replace("_", " ").capitalize()
    missing = getattr(suite, "needs", LABELS) - bench.target.provides
    if missing:
        return SuiteResult(title, skipped=f"{bench.target.name} does not tell {' and '.join(sorted(missing))}")
    try:
        result: Any = suite(bench)
    except ServiceError:
        raise  # the same command again goes on from the answers that are logged, this suite's included
    except UserError as error:  # neither may what it cannot use cost the verdict that is made already,
        return SuiteResult(title, skipped=f"{FAILED}{error}")
    except Exception as error:  # nor its own defect
        log.exception("the suite %s failed", name)
        return SuiteResult(title, skipped=f"{FAILED}{type(error).__name__}: {error}")
    if not isinstance(result, SuiteResult):
        return SuiteResult(title, skipped=f"it gave {type(result).__name__}, not a SuiteResult")
    return result
