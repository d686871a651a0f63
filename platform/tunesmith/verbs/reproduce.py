"""Run a training again from its record, and compare what comes out."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tunesmith.errors import EXIT_ERROR, RunError
from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from tunesmith.runs import Run

TOLERANCE = 1e-5
"""Metrics are the same when they differ by no more than this, relative to the larger one where that is above 1."""


@dataclass(frozen=True)
class Ingredient:
    """Something that went into both runs: data, split, base model."""

    name: str
    then: str | None
    now: str | None

    @property
    def same(self) -> bool:
        """Whether both are known and equal; what the first run did not record cannot be held against the second."""
        return self.then is None or self.then == self.now


@dataclass(frozen=True)
class Outcome:
    """One number of both runs."""

    name: str
    then: float | None
    now: float | None
    inside: bool | None
    """Whether the new value is within the first one's interval; None where there is none."""

    @property
    def difference(self) -> float:
        """The new value less the first; infinite where only one of them is defined."""
        if self.then is None or self.now is None:
            return 0.0 if self.then is self.now else math.inf
        return self.now - self.then

    def same(self, tolerance: float) -> bool:
        """Whether they are equal within the tolerance."""
        return abs(self.difference) <= tolerance * max(1.0, abs(self.then or 0.0), abs(self.now or 0.0))


@dataclass(frozen=True)
class Comparison:
    """A run beside its repetition."""

    ingredients: list[Ingredient]
    outcomes: list[Outcome]
    tolerance: float = TOLERANCE

    @property
    def reproduced(self) -> bool:
        """Whether the same things went in and the same numbers came out."""
        return all(one.same for one in self.ingredients) and all(one.same(self.tolerance) for one in self.outcomes)

    @property
    def verdict(self) -> str:
        """The comparison in one line."""
        changed = [one.name for one in self.ingredients if not one.same]
        different = [one for one in self.outcomes if not one.same(self.tolerance)]
        if changed:
            return f"not the same experiment: {', '.join(changed)} changed"
        if not different:
            exact = all(one.difference == 0 for one in self.outcomes)
            return "reproduced: identical" if exact else "reproduced: identical within float error"
        worst = max(different, key=lambda one: abs(one.difference))
        within = all(one.inside for one in different if one.inside is not None)
        hint = ", all within the first run's intervals" if within and any(one.inside is not None for one in different) else ""
        return f"not reproduced: {len(different)} of {len(self.outcomes)} numbers differ, most {worst.name}{_by(worst)}{hint}"


@click.command("reproduce")
@click.argument("run")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
@click.option("--into", metavar="DIR", help="Where the new run goes; left out, beside the first.")
@click.option(
    "--tolerance", default=TOLERANCE, show_default=True, type=click.FloatRange(min=0), help="What counts as the same."
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@on_option
def command(run: str, output_dir: str, into: str | None, tolerance: float, on: str | None, as_json: bool) -> None:
    """Train RUN's recipe again in a new run and compare the two; ends with 0 where they are the same, else with 1."""
    from tunesmith.runs import Run
    from tunesmith.verbs.console import err, out

    first = Run.open(run, output_dir)
    for line in preamble(first):
        err().print(line, markup=False)
    again = reproduce(first, into=into, on=on)
    found = compare(first, again, tolerance)
    if as_json:
        about = {"first": first.path, "again": again.path, "reproduced": found.reproduced, "verdict": found.verdict}
        click.echo(json.dumps({**about, **dataclasses.asdict(found)}, indent=2, ensure_ascii=False))
    else:
        out().print(table(found), soft_wrap=False)
        out().print(f"{found.verdict}\nnew run: {again.path}", markup=False)
    if not found.reproduced:
        raise click.exceptions.Exit(EXIT_ERROR)


def reproduce(first: Run, *, into: str | None = None, on: str | None = None, train: Callable[..., Run] | None = None) -> Run:
    """A new run of the recipe of ``first``, trained from the beginning with ``train`` (``tunesmith train``'s own).

    Raises :class:`RunError` where the first run has nothing to compare with.
    """
    from tunesmith import storage
    from tunesmith.recipe import Recipe

    if first.status != "done" or not first.metrics:
        raise RunError(
            f"{first.path} is {first.status} and has {'a' if first.metrics else 'no'} verdict: nothing to compare with.\n"
            "    → Finish it with `tunesmith train` first."
        )
    if train is None:
        from tunesmith.verbs.train import train as train_verb

        train = train_verb
    place = into or storage.parent(first.path)
    recipe = Recipe.load(first.file("recipe.yaml"), [f"training.output_dir={place}"])
    return train(recipe, on=on, resume=False)


def preamble(first: Run) -> list[str]:
    """What is known to differ before training starts: packages, Python, code, machine."""
    from tunesmith.runs import manifest

    said = first.manifest
    now = {"python": platform.python_version(), **manifest.packages()}
    then = {"python": said.get("python"), **(said.get("packages") or {})}
    lines = [
        f"  {name} {then.get(name) or 'not installed'} then, {now.get(name) or 'not installed'} now"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]
    code, here = said.get("git"), manifest.git_state()
    if code != here:
        lines.append(f"  code {_commit(code)} then, {_commit(here)} now")
    machine, mine = said.get("hardware") or {}, manifest.hardware()
    for key in ("machine", "cpus"):
        if machine.get(key) != mine[key]:
            lines.append(f"  {key} {machine.get(key)} then, {mine[key]} now")
    head = f"Reproducing {first.path}"
    return [f"{head}: what is different now", *lines] if lines else [f"{head}: everything is as it was"]


def compare(first: Run, again: Run, tolerance: float = TOLERANCE) -> Comparison:
    """The two runs side by side: what went in, and what came out."""
    return Comparison(
        [Ingredient(name, then, _ingredients(again).get(name)) for name, then in _ingredients(first).items()],
        [*_metric_outcomes(first, again), *_loss_outcome(first, again)],
        tolerance,
    )


def table(found: Comparison) -> Any:
    """The comparison as a rich table."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "THEN", "NOW", ""):
        shown.add_column(title, overflow="fold")
    for one in found.ingredients:
        shown.add_row(one.name, _short(one.then), _short(one.now), "same" if one.same else "[red]changed[/]")
    for outcome in found.outcomes:
        same = outcome.same(found.tolerance)
        within = {True: ", within its interval", False: ", outside its interval", None: ""}[outcome.inside]
        note = "same" if same else f"[red]differs{_by(outcome)}{within}[/]"
        shown.add_row(outcome.name, _number(outcome.then), _number(outcome.now), note)
    return shown


def _ingredients(run: Run) -> dict[str, str | None]:
    """Hashes of what went into a run."""
    said = run.manifest
    data = {f"data.{split}": about.get("hash") for split, about in (said.get("data") or {}).items()}
    base = said.get("base_model") or {}
    found = {**data, "split": said.get("split_hash"), "base model": base.get("hash") or base.get("revision")}
    fillers = {
        f"augmentation model {one['name_or_path']}": one["hash"] or one["revision"] for one in said.get("augment_models", ())
    }
    return {**found, **fillers}


def _metric_outcomes(first: Run, again: Run) -> list[Outcome]:
    """Every metric of the first run's verdict."""
    now = again.metrics
    return [
        Outcome(name, estimate["value"], now.get(name), _inside(estimate, now.get(name)))
        for name, estimate in first.estimates.items()
    ]


def _loss_outcome(first: Run, again: Run) -> list[Outcome]:
    """The last training loss: it shows a difference that no metric of classes shows."""
    losses = [_last_loss(run) for run in (first, again)]
    return [] if losses[0] is None else [Outcome("last training loss", losses[0], losses[1], None)]


def _last_loss(run: Run) -> float | None:
    found = [line["loss"] for line in run.history if line.get("split") == "train" and line.get("loss") is not None]
    return found[-1] if found else None


def _inside(estimate: Mapping[str, float | None], value: float | None) -> bool | None:
    low, high = estimate.get("low"), estimate.get("high")
    return None if low is None or high is None or value is None else low <= value <= high


def _by(outcome: Outcome) -> str:
    return f" by {outcome.difference:+.3g}" if math.isfinite(outcome.difference) else " (undefined in one of them)"


def _commit(code: Mapping[str, Any] | None) -> str:
    return "outside git" if code is None else code["commit"][:12] + (" with changes" if code.get("dirty") else "")


def _short(value: str | None) -> str:
    return "not recorded" if value is None else value[:16]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
