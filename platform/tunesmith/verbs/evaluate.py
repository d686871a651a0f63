"""Judge a run's model: metrics with intervals, beside its baselines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from tunesmith.errors import UserError
from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tunesmith.cluster.judges import Spread
    from tunesmith.data.prepared import PreparedData
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.runs import Run
    from tunesmith.training.progress import Progress

COLOURS = {"better": "green", "worse": "red", "unclear": "yellow", "alone": "cyan"}
MOST_SHOWN = 8
"""Metrics in the terminal; all are in the report."""


@click.command("evaluate")
@click.argument("run")
@click.option(
    "--data",
    metavar="[NAME=]PLACE",
    multiple=True,
    help="Other labelled data: a file, folder, glob, URI or Hub id. Several, each NAME=PLACE, are judged by domain too.",
)
@click.option("--split", metavar="NAME", help="test, validation or train of the run's own data; test if not said.")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Spread it over N Ray workers; with --on 1 if not said."
)
@on_option
def command(run: str, data: tuple[str, ...], split: str | None, output_dir: str, workers: int | None, on: str | None) -> None:
    """Judge the model of RUN: a run's folder, URI, name, or `latest`.

    Without options the run's own verdict is made again; other data or another split goes to a folder under evaluations/.
    """
    from tunesmith.runs import Run
    from tunesmith.verbs.console import out

    opened = Run.open(run, output_dir)
    evaluation = evaluate(opened, data=parse_data(data), split=split, on=on, workers=workers)
    print_verdict(evaluation, opened, out())


def parse_data(given: Sequence[str]) -> str | dict[str, str] | None:
    """The place of other data, or places by the names of their domains.

    >>> parse_data(["clinic=a.csv", "outside=s3://b/year=2024/c.csv"])
    {'clinic': 'a.csv', 'outside': 's3://b/year=2024/c.csv'}
    >>> parse_data(["s3://b/year=2024/c.csv"]), parse_data([])
    ('s3://b/year=2024/c.csv', None)

    Raises :class:`UserError` for several places of which one has no name, and for one name twice.
    """
    import os

    from tunesmith.recipe.data import DOMAIN_NAME

    found: dict[str, str] = {}
    for one in given:
        name, equals, place = one.partition("=")
        if not equals or not re.match(DOMAIN_NAME, name) or os.path.exists(one):
            if len(given) == 1:
                return one
            raise UserError(f"--data {one}: of several data sets each needs a name\n    → Write --data NAME={one}")
        if not place:
            raise UserError(f"--data {one}: it names no place\n    → Write --data {name}=FILE")
        if name in found:
            raise UserError(f"--data: two data sets are called {name}\n    → Give each a name of its own")
        found[name] = place
    return found or None


def evaluate(
    run: Run | str,
    *,
    data: str | Mapping[str, str] | None = None,
    split: str | None = None,
    prepared: PreparedData | None = None,
    on: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge the run, and write the report and (for the run's own verdict) the model card. The end of ``train`` too.

    Args:
        run: a finished run, or its folder or URI.
        data: other labelled data: a path, glob, URI or Hub id, relative to the working directory.
        split: ``test``, ``validation`` or ``train`` of the run's own data.
        prepared: the run's prepared data, where it is open already.
        on: the Ray cluster that judges, ``HOST:PORT``; None is this process, or with ``workers`` a Ray started here.
        workers: spread the examples over so many workers; the numbers are those of one.
        progress: where progress is shown; its own view if not given.

    Raises:
        UserError: something that the user can mend.
    """
    from tunesmith.evaluation.evaluate import evaluate_run
    from tunesmith.report.card import write_card
    from tunesmith.report.html import write_report
    from tunesmith.runs import Run as RunClass
    from tunesmith.tasks import load_task
    from tunesmith.training.progress import Progress as View
    from tunesmith.verbs.console import err

    run = run if isinstance(run, RunClass) else RunClass.open(run)
    with ExitStack() as stack:
        progress = progress or stack.enter_context(View(err()))
        judges = stack.enter_context(_judges(run, on, workers or 1, progress)) if on or workers else None
        progress.phase("Judging the model")
        found = evaluate_run(run, data=data, split=split, prepared=prepared, judges=judges, progress=progress.prepared)
    write_report(run, found)
    if found.folder == run.file(""):
        write_card(run, found, load_task(found.task).pipeline)
    return found


@contextmanager
def _judges(run: Run, on: str | None, workers: int, progress: Progress) -> Iterator[Spread]:
    """The run's models on so many workers of a cluster: joined, or started on this machine."""
    from tunesmith.cluster.connect import connect
    from tunesmith.cluster.judges import judges_on_cluster

    progress.phase("Joining the cluster" if on else "Starting Ray")
    with connect(on), judges_on_cluster(run, workers, progress.phase) as judges:
        yield judges


def print_verdict(evaluation: Evaluation, run: Run, console: Console) -> None:
    """The verdict in a terminal: the sentence, a table of the metrics, and where the report is."""
    from rich.markup import escape

    from tunesmith import storage
    from tunesmith.report import retention
    from tunesmith.report.html import REPORT
    from tunesmith.report.words import verdict

    said = verdict(evaluation)
    console.print()
    console.print(f"[bold {COLOURS[said.tone]}]{escape(said.sentence)}[/]")
    console.print(escape(said.detail))
    console.print()
    console.print(_table(evaluation))
    for text in craft_notes(evaluation, run):
        console.print(escape(text))
    for text in (*filter(None, [retention.ceiling(run)]), *evaluation.warnings):
        console.print(f"[yellow]note:[/] {escape(text)}")
    for one in evaluation.baselines.values():
        if one.skipped:
            console.print(f"[dim]not compared with {one.title}: {escape(one.skipped)}[/]")
    folder = evaluation.folder or run.file("")
    console.print(f"report  {escape(storage.join(folder, REPORT))}", soft_wrap=True)
    if folder == run.file(""):
        console.print(f"model   {escape(run.file('model'))}", soft_wrap=True)


def craft_notes(evaluation: Evaluation, run: Run) -> list[str]:
    """How domains differ, what was kept of the old, what a teacher and the after-steps did, overfitting: a sentence each."""
    from tunesmith.evaluation.calibration import sentence as calibration
    from tunesmith.report import domains, retention, self_training
    from tunesmith.training.overfitting import overfitting

    by_domain = domains.sentence(evaluation)
    said = [by_domain] if by_domain else []
    said += [retention.sentence(name, one, evaluation.headline) for name, one in evaluation.retention.items()]
    said += self_training.sentences(run)
    if mixed := run.manifest.get("wise_ft"):
        said.append(retention.mixture(mixed))
    if calibrated := run.manifest.get("calibration"):
        said.append(calibration(calibrated))
    if found := overfitting(run.history):
        said.append(found.sentence())
    return said


def _table(evaluation: Evaluation) -> Table:
    from rich import box
    from rich.table import Table

    from tunesmith.evaluation.evaluate import BASE_MODEL, MAJORITY
    from tunesmith.report import words

    judged = {key: one for key, one in evaluation.baselines.items() if not one.skipped}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{evaluation.split}, n = {evaluation.n:,}")
    table.add_column("fine-tuned", justify="right", style="bold")
    table.add_column(f"{100 * evaluation.confidence:g} % interval")
    for key in judged:
        table.add_column({BASE_MODEL: "pre-trained", MAJORITY: "guessing"}.get(key, key), justify="right")
        table.add_column("difference")
    for name in _shown(evaluation):
        one = evaluation.metrics[name]
        row = [words.metric_title(name), words.number(name, one.value), words.interval(name, one)]
        for baseline in judged.values():
            difference = baseline.differences[name]
            colour = COLOURS[words.tone_of(name, difference)]
            row += [words.number(name, baseline.metrics[name].value), f"[{colour}]{words.change(name, difference)}[/]"]
        table.add_row(*row)
    return table


def _shown(evaluation: Evaluation) -> list[str]:
    """The headline, then the metrics that people look for first."""
    usual = (
        "accuracy",
        "f1_macro",
        "f1",
        "precision",
        "recall",
        "f1_micro",
        "roc_auc",
        "pr_auc",
        "token_accuracy",
        "log_loss",
        "ece",
    )
    names = [evaluation.headline, *usual, *(n for n in evaluation.metrics if not n.endswith(("_weighted", "_macro", "_micro")))]
    kept = [name for name in dict.fromkeys(names) if name in evaluation.metrics and name != "loss"]
    return kept[:MOST_SHOWN]
