"""From data to a gated run within a time: look at the data, write a recipe that gives its reasons, search, judge, gate."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith.errors import GateFailed, UserError
from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from tunesmith.evaluation.gate import GateResult
    from tunesmith.runs import Run

LEAST_SECONDS = 60.0
"""Less is not enough for the start of Ray, one trial and a verdict."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def auto(
    data: str,
    seconds: float,
    *,
    models: Sequence[str] = (),
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    on: str | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Run, GateResult]:
    """Look at labelled data, write a recipe for it, search within the time, and gate what comes out.

    Args:
        data: a file, folder, glob, URI or Hub id.
        seconds: for everything.
        models: pre-trained models to choose from; the task's usual one where none is given.
        task: where it cannot be told from the data.
        columns: role → column, where it cannot be told.
        out: where the recipe is written; its gate is written beside it.
        force: replace files that are there; else the same files are gone on with, and others refused.
        on: the Ray cluster to join.
        overrides: of the recipe, ``training.output_dir=…``.

    Raises:
        UserError: something that the user can mend.
    """
    from tunesmith.tuning.autopilot import write_gate, write_recipe
    from tunesmith.tuning.looking import look, size_up
    from tunesmith.verbs import console
    from tunesmith.verbs.gate import gate
    from tunesmith.verbs.init import config_of, schema_beside, seen_from
    from tunesmith.verbs.tune import tune

    begun = time.monotonic()
    if seconds < LEAST_SECONDS:
        raise UserError(
            f"{seconds:g} s are too few: Ray's start and a verdict take most of a minute\n    → Give --time 2m or more"
        )
    seen = look(data, os.getcwd(), task, columns)
    name = _name(data)
    place = Path(out) if out is not None else Path(f"{name}-auto.yaml")
    folder = place.parent.absolute()
    chosen = list(models) or [_usual_model(seen.task)]
    text = write_recipe(
        seen,
        name=f"auto-{name}"[:80],
        data=str(seen_from(folder, data)),
        models=[str(seen_from(folder, model)) for model in chosen],
        configs=[config_of(model) for model in chosen],
        sizes=[size_up(seen.task, model) for model in chosen],
        seconds=seconds,
        speed=_speed(place, force, on),
        schema=schema_beside(folder),
    )
    _write(place, text, force)
    say = console.err().print
    say(f"{seen.task}: {seen.why_task}. Every choice is in {place}, with its reason", markup=False)
    run = tune(str(place), overrides, on=on)
    headline = str(run.verdict["headline"])
    rules = place.with_name(f"{place.stem}-gate.yaml")
    _write(rules, write_gate(seen, headline), force=True)
    found = gate(run.path, str(rules))
    say(f"All of it took {time.monotonic() - begun:.0f} of {seconds:g} s", markup=False)
    return run, found


def _usual_model(task: str) -> str:
    from tunesmith.recipe.task_names import KNOWN

    if task not in KNOWN:
        raise UserError(f"{task} is not a task of Tunesmith\n    → Write one of {', '.join(KNOWN)}, or a recipe of your own")
    return KNOWN[task].model


def _speed(place: Path, force: bool, on: str | None) -> float | None:
    """Of this machine; as it was written down where the recipe is there and stays, so that the same command goes on.

    None where trials run on a cluster: this machine tells nothing of it.
    """
    from tunesmith.tuning.pace import machine_speed

    if (on or os.environ.get("RAY_ADDRESS") or "local") != "local":
        return None
    written = place.read_text(encoding="utf-8") if place.exists() and not force else ""
    found = re.search(r"make (\S+) products and sums a second", written)
    return float(found.group(1) if found else f"{machine_speed():.1e}")


def _name(data: str) -> str:
    """A name for the runs, by that of the data."""
    from tunesmith.recipe.explain import safe_name

    parts = [part for part in re.split(r"[/\\]", data.rstrip("/")) if part and part not in ("train", "data")]
    return safe_name(re.sub(r"\.[A-Za-z0-9.]+$", "", parts[-1] if parts else "auto"))


def _write(place: Path, text: str, force: bool) -> None:
    """Write a file; one that says the same stays, so that the same command goes on; another is refused."""
    from tunesmith import storage

    if place.exists() and not force:
        if place.read_text(encoding="utf-8") == text:
            return
        raise UserError(
            f"{place} exists and says something else\n    → Name another file with --out, or replace it with --force"
        )
    storage.write_text(place, text)


def parse_time(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``1.5h``; a bare number is minutes.

    >>> parse_time("30m"), parse_time("1.5h"), parse_time("10")
    (1800.0, 5400.0, 600.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    if not found or not float(found.group(1)):
        raise UserError(f"--time {text}: this is no time\n    → Write it as 90s, 30m or 1.5h")
    return float(found.group(1)) * UNITS[found.group(2) or "m"]


def _parse_columns(written: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in written]
    wrong = next((text for text, (role, _, column) in zip(written, pairs, strict=True) if not role or not column), None)
    if wrong is not None:
        raise UserError(f"--column {wrong}: write it as ROLE=COLUMN, such as text=review")
    return {role: column for role, _, column in pairs}


@click.command("auto")
@click.argument("data")
@click.argument("overrides", nargs=-1)
@click.option("--time", "given", required=True, metavar="TIME", help="For everything: 90s, 30m, 1.5h.")
@click.option("--model", "models", multiple=True, help="A pre-trained model: a Hub id, folder or URI; several are chosen from.")
@click.option("--task", help="The task, where the data does not tell it.")
@click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN", help="Which column is what, where that is not told.")
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Where the recipe goes; NAME-auto.yaml if not said."
)
@click.option("--force", is_flag=True, help="Replace the recipe if it exists and says something else.")
@on_option
def command(
    data: str,
    overrides: tuple[str, ...],
    given: str,
    models: tuple[str, ...],
    task: str | None,
    columns: tuple[str, ...],
    out: str | None,
    force: bool,
    on: str | None,
) -> None:
    """Fine-tune on DATA within a time: look at it, write a recipe with reasons, search, judge, gate.

    The recipe is an ordinary one: change it, and `tunesmith tune` it again. OVERRIDES are dotted: training.output_dir=DIR.
    """
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.report.gate_words import sentence
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import print_verdict
    from tunesmith.verbs.gate import print_gate

    run, found = auto(
        data,
        parse_time(given),
        models=models,
        task=task,
        columns=_parse_columns(columns),
        out=out,
        force=force,
        on=on,
        overrides=overrides,
    )
    print_verdict(Evaluation.from_json(run.verdict), run, console.out())
    print_gate(found, console.out())
    if not found.passed:
        raise GateFailed(sentence(found))


__all__ = ["auto", "command"]
