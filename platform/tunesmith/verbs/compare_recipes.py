"""Train several recipes, or variants of one, over the same seeds, and say what each remedy brought.

The first variant is the reference: every other one is held against it, on the same test rows, seed by seed.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from tunesmith.errors import DataError, UserError
from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.evaluation.results import Estimates
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run

RESULT, PAGE = "comparison.json", "comparison.html"


@dataclass(frozen=True)
class Variant:
    """One way of training."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """What a variant came to."""

    name: str
    runs: list[str]
    """One run for each seed."""
    metrics: Estimates
    """Over the seeds; with one seed, over the test rows."""
    differences: Estimates = field(default_factory=dict)
    """How much more of each metric than the first variant has, paired by seed; with one seed, by test row."""
    changed: dict[str, Any] = field(default_factory=dict)
    """The keys in which its recipe differs from the first one's."""
    seconds: float | None = None
    """Training time of one run, the mean over the seeds."""


@dataclass(frozen=True)
class RecipeComparison:
    """All variants side by side."""

    headline: str
    """The metric that the first variant's verdict is about."""
    seeds: list[int]
    n: int
    """Test rows."""
    outcomes: list[Outcome]
    folder: str


def compare_recipes(
    variants: Sequence[Variant], *, seeds: int = 1, folder: str | None = None, on: str | None = None
) -> RecipeComparison:
    """Train every variant over ``seeds`` seeds and compare the verdicts; finished runs in ``folder`` are taken as they are.

    Seeds are the first recipe's ``training.seed`` and those after it; the split does not change with them.

    Raises:
        UserError: fewer than two variants, or two of the same name.
        DataError: something in a variant's data, or the variants have different test rows.
    """
    _check(variants)
    return train_all(variants, seeds, folder, on)


def train_all(
    variants: Sequence[Variant], seeds: int, folder: str | None, on: str | None, force: bool = False
) -> RecipeComparison:
    """:func:`compare_recipes` without its checks of the variants; with ``force`` finished runs are trained again."""
    from tunesmith import storage
    from tunesmith.cluster.connect import connect
    from tunesmith.verbs import console

    _check_data(variants)
    first = variants[0].recipe.resolved()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    place = folder or storage.join(first.training.output_dir, f"compare-{first.name}-{stamp}")
    numbers = list(range(first.training.seed, first.training.seed + seeds))
    runs: dict[str, list[Run]] = {variant.name: [] for variant in variants}
    with connect(on):  # one Ray for all of them
        for seed in numbers:
            for variant in variants:
                done = sum(map(len, runs.values())) + 1
                console.err().print(f"[bold]{done} of {seeds * len(variants)}[/]: {variant.name}, seed {seed}")
                runs[variant.name].append(_trained(variant, seed, numbers[0], place, force))
    found = _compared(variants, runs, numbers, place)
    _write(found)
    return found


def parse_variants(recipes: Sequence[str], written: Sequence[str]) -> list[Variant]:
    """The variants of a command line: one for each recipe, or the first recipe and what each ``NAME: KEY=VALUE …`` changes.

    Raises:
        RecipeError: every mistake of the recipe that has any.
        UserError: a variant that is not written so, or variants of several recipes.
    """
    from tunesmith.recipe import Recipe

    if written and len(recipes) > 1:
        raise UserError("--variant changes one recipe, and several are given\n    → Give one RECIPE, or no --variant")
    loaded = [Recipe.load(path) for path in recipes]
    if not written:
        names = [recipe.name for recipe in loaded]
        return [
            Variant(name if names.count(name) == 1 else path, recipe)
            for name, path, recipe in zip(names, recipes, loaded, strict=True)
        ]
    variants = [Variant("as written", loaded[0])]
    for text in written:
        name, colon, rest = text.partition(":")
        try:
            overrides = tuple(shlex.split(rest))
        except ValueError as error:
            raise UserError(f"--variant {text!r}: {error}\n    → Close the quotation that it begins") from error
        if not colon or not name.strip() or not overrides:
            raise UserError(
                f"--variant {text!r} is not written as NAME: KEY=VALUE …\n"
                '    → Such as --variant "weighted: training.class_weights=inverse"'
            )
        variants.append(Variant(name.strip(), loaded[0].override(*overrides)))
    return variants


def _check(variants: Sequence[Variant]) -> None:
    from tunesmith.recipe.explain import safe_name

    names = [variant.name for variant in variants]
    if len(names) < 2:
        raise UserError("there is nothing to compare with\n    → Give a second RECIPE, or --variant NAME: KEY=VALUE")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two variants are called {twice!r}\n    → Give each a name of its own")
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(safe_name(name), name)
        if other != name:
            raise UserError(
                f"{other!r} and {name!r} would have their runs in one folder, {safe_name(name)!r}\n"
                "    → Give each a name of its own of letters and digits: name: in a recipe, or --variant NAME: …"
            )


def _check_data(variants: Sequence[Variant]) -> None:
    """Prepare and check all, so that a mistake shows before any is trained, and see that they have the same test rows."""
    from tunesmith.data.prepare import prepare
    from tunesmith.tasks import load_task
    from tunesmith.training.precheck import check_prepared
    from tunesmith.training.progress import Progress
    from tunesmith.verbs import console

    hashes: dict[str, str | None] = {}
    with Progress(console.err()) as progress:
        progress.phase("Checking the data")
        for variant in variants:
            recipe, place = variant.recipe.resolved(), variant.recipe.training.output_dir
            task = load_task(recipe.task)
            prepared = prepare(recipe, task, output_dir=place, progress=progress.prepared, engine="local")
            try:
                check_prepared(recipe, task, prepared, progress.prepared)
            except UserError as error:
                raise type(error)(f"{variant.name}: {error}") from error
            judged = prepared.splits.get("test") or prepared.splits.get("validation")
            hashes[variant.name] = judged.hash if judged is not None else None
    first = variants[0].name
    other = next((name for name, one in hashes.items() if one != hashes[first]), None)
    if other is not None:
        raise DataError(
            f"{other!r} would be judged on other test rows than {first!r}: the two could not be compared\n"
            "    → Give data.test in both recipes, or leave data.split as they are in the first"
        )


def _trained(variant: Variant, seed: int, first: int, place: str, force: bool) -> Run:
    """The finished run of a variant: found, gone on with, or trained; with ``force`` always trained."""
    from tunesmith import storage
    from tunesmith.runs import Run
    from tunesmith.verbs.train import train

    recipe, path = seeded(variant, seed, first), place_of(place, variant, seed)
    there = storage.exists(storage.join(path, "manifest.json"))
    if there and not force:
        run = Run.open(path)
        run.check_recipe(recipe.resolved())
        if run.status == "done":
            return run
    return train(recipe, run=path, force=force and there)


def seeded(variant: Variant, seed: int, first: int) -> Recipe:
    """The variant's recipe with this seed. A few-shot drawing changes with it."""
    drawn = variant.recipe.data.few_shot
    again = [f"data.few_shot={{seeds: 1, seed: {drawn.seed + seed - first}}}"] if drawn.per_class is not None else []
    return variant.recipe.override(f"training.seed={seed}", *again)


def place_of(folder: str, variant: Variant, seed: int) -> str:
    """Where a variant's run with this seed is."""
    from tunesmith import storage
    from tunesmith.recipe.explain import safe_name

    return storage.join(folder, f"{safe_name(variant.name)}-seed{seed}")


def _compared(variants: Sequence[Variant], runs: Mapping[str, list[Run]], seeds: list[int], place: str) -> RecipeComparison:
    from tunesmith.runs.compare import differences

    reference = runs[variants[0].name]
    outcomes = []
    for variant in variants:
        mine = runs[variant.name]
        changed = {key: b for key, _, b in differences(reference[0].recipe_values, mine[0].recipe_values)}
        metrics, more = _over_seeds(mine, reference) if len(seeds) > 1 else _over_rows(mine[0], reference[0])
        times = [run.manifest.get("durations", {}).get("train") for run in mine]
        known = [seconds for seconds in times if seconds is not None]
        outcomes.append(
            Outcome(
                variant.name,
                [run.path for run in mine],
                metrics,
                more if variant is not variants[0] else {},
                changed,
                round(sum(known) / len(known), 1) if known else None,
            )
        )
    verdict = reference[0].verdict
    return RecipeComparison(verdict["headline"], seeds, verdict[verdict["split"]]["n"], outcomes, place)


def _found(run: Run) -> Estimates:
    """The run's verdict, and beside each metric of the old data what was kept of it: ``accuracy/clean``."""
    from tunesmith.evaluation.results import Evaluation

    verdict = Evaluation.from_json(run.verdict)
    kept = {
        f"{verdict.headline}/{name}": one.after[verdict.headline]
        for name, one in verdict.retention.items()
        if verdict.headline in one.after
    }
    return {**verdict.metrics, **kept}


def _over_seeds(runs: Sequence[Run], reference: Sequence[Run]) -> tuple[Estimates, Estimates]:
    """Each metric over the seeds, and its difference to the reference's, paired by seed."""
    from tunesmith.evaluation.repeats import over_seeds, paired
    from tunesmith.tasks.metrics import limits

    values, others = [_found(run) for run in runs], [_found(run) for run in reference]

    def all_of(found: Sequence[Estimates], name: str) -> list[float]:
        return [one[name].value if name in one else math.nan for one in found]

    return (
        {name: over_seeds(all_of(values, name), limits=limits(name)) for name in values[0]},
        {
            name: paired(all_of(values, name), all_of(others, name), limits=limits(name))
            for name in values[0]
            if name in others[0]
        },
    )


def _over_rows(run: Run, reference: Run) -> tuple[Estimates, Estimates]:
    """Each metric as the run's verdict has it, and its difference to the reference's, paired by test row.

    What was kept of old data has no interval for its difference: its rows are not those of the test.
    """
    from tunesmith.evaluation.pairing import aligned
    from tunesmith.evaluation.sides import open_side
    from tunesmith.evaluation.statistics import Estimate, difference

    settings = reference.recipe.evaluation
    sides = open_side(run.path), open_side(reference.path)
    one, other = (
        side.judged(records, settings.bootstrap_samples, settings.seed)
        for side, records in zip(sides, aligned(*sides), strict=True)
    )
    mine, theirs = _found(run), _found(reference)
    more: Estimates = {}
    for name in (name for name in mine if name in theirs):
        if name in one.values and name in other.values:
            more[name] = difference(one, other, name, settings.confidence)
        else:
            more[name] = Estimate(mine[name].value - theirs[name].value, math.nan, math.nan, mine[name].n, "none")
    return mine, more


def _write(found: RecipeComparison) -> None:
    """``comparison.json`` and the page beside the runs."""
    from tunesmith import storage
    from tunesmith.evaluation.results import plain
    from tunesmith.report.comparison import render

    storage.write_json(storage.join(found.folder, RESULT), plain(found))
    storage.write_text(storage.join(found.folder, PAGE), render(found))


def table(found: RecipeComparison) -> Any:
    """The comparison as a rich table: the headline metric of every variant, and what it kept of old data.

    One recipe alone has nothing that it could be a change of.
    """
    from rich.table import Table

    from tunesmith.report import words
    from tunesmith.runs.words import span

    name, colours = found.headline, {"better": "[green]{}[/]", "worse": "[red]{}[/]"}
    shown = Table(box=None, pad_edge=False, header_style="bold")
    old = [metric for metric in found.outcomes[0].metrics if "/" in metric]
    several = len(found.outcomes) > 1
    titles = ("VARIANT", words.metric_title(name).upper(), "95 % INTERVAL", *("CHANGE", "95 % INTERVAL") * several)
    for title in (*titles, *(words.metric_title(metric).upper() for metric in old), "TRAINING"):
        shown.add_column(title, overflow="fold")
    for one in found.outcomes:
        more = one.differences.get(name)
        changed = ("the reference", "")
        if more:
            tone = colours.get(words.tone_of(name, more), "{}")
            changed = (tone.format(words.change(name, more)), words.change_interval(name, more))
        shown.add_row(
            one.name,
            words.number(name, one.metrics[name].value),
            words.interval(name, one.metrics[name]),
            *changed * several,
            *(words.number(metric, one.metrics[metric].value) if metric in one.metrics else "–" for metric in old),
            span(one.seconds) if one.seconds is not None else "",
        )
    return shown


def print_comparison(found: RecipeComparison, console: Console) -> None:
    """The table, what it rests on, and where the page is."""
    console.print(table(found), soft_wrap=False)
    pairs = f"{len(found.seeds)} seeds" if len(found.seeds) > 1 else "one seed, paired by test row"
    console.print(f"{found.n} test rows, {pairs}\n{found.folder}/{PAGE}", markup=False)


@click.command("compare-recipes")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE…")
@click.option("--variant", "written", multiple=True, metavar="'NAME: KEY=VALUE …'", help="A change of the one RECIPE.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="Train each over so many seeds.")
@click.option("--out", "folder", metavar="DIR", help="Where the runs go; finished ones in it are not trained again.")
@on_option
def command(recipes: tuple[str, ...], written: tuple[str, ...], seeds: int, folder: str | None, on: str | None) -> None:
    """Train several recipes, or variants of one, and compare what comes out with the first.

    The test rows are the same for all; differences are paired by seed, or by test row where there is one seed.
    """
    from tunesmith.verbs.console import out

    found = compare_recipes(parse_variants(recipes, written), seeds=seeds, folder=folder, on=on)
    print_comparison(found, out())
