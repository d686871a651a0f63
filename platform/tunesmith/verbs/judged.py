"""What ``compare`` and ``gate`` take as a model: a run or an evaluation as it stands, or a served model, judged now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from tunesmith.errors import UserError
from tunesmith.verbs.evaluate_url import SCHEMES, Served, evaluate_url, wanted
from tunesmith.verbs.evaluation_settings import settings_of

if TYPE_CHECKING:
    from tunesmith.evaluation.served import Before
    from tunesmith.recipe.gate import Gate


def is_url(place: str) -> bool:
    """Whether a place is the address of a served model."""
    return place.startswith(SCHEMES)


def judged_place(
    place: str,
    *,
    data: str | Mapping[str, str] | None = None,
    suites: Sequence[str] = (),
    overrides: Sequence[str] = (),
    output_dir: str = "runs",
    before: Before | None = None,
    **served: Unpack[Served],
) -> str:
    """The place itself; of a served model the folder of the evaluation that is made now, unless ``before`` refuses it.

    Raises :class:`UserError` where the served model cannot be judged.
    """
    if not is_url(place):
        return place
    asked = wanted(place, data=data, suites=suites, overrides=overrides, output_dir=output_dir, **served)
    return evaluate_url(asked, before=before).folder


def judged_anew(place: str, rules: Gate, *, overrides: Sequence[str] = (), output_dir: str = "runs") -> str:
    """A run judged again, with the suites that the rules of a gate ask for beside those that it had; its path.

    Raises:
        RunError: there is no such run.
        UserError: a suite that its data cannot have.
    """
    from tunesmith.evaluation.sides import verdict_of
    from tunesmith.recipe.suite_names import SUITES
    from tunesmith.runs import Run
    from tunesmith.verbs.evaluate import evaluate

    run = Run.open(place, output_dir)
    before = verdict_of(run.path)
    had = [name for name in (before.suites if before else ()) if name in SUITES]
    settings = settings_of(run.recipe, [*had, *rules.suites], overrides)
    evaluate(run, settings=settings)
    return run.path


def check_overrides(place: str, overrides: Sequence[str], anew: bool) -> None:
    """Raises :class:`UserError` where keys of the evaluation are given, and nothing is evaluated."""
    if overrides and not (anew or is_url(place)):
        raise UserError(
            f"{overrides[0]}: {place} has been judged already\n    → Write --evaluate to judge it again, or leave it out"
        )
