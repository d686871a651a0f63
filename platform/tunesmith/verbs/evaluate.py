"""Judge a run's model, or a served one: metrics with intervals, beside its baselines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import click

from tunesmith.errors import UserError
from tunesmith.verbs.evaluate_url import (
    SCHEMES,
    ServedFiles,
    evaluate_url,
    print_served,
    refuse_served,
    served_options,
    wanted,
)
from tunesmith.verbs.evaluation_settings import settings_of
from tunesmith.verbs.options import on_option, refuse_elsewhere

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tunesmith.cluster.judges import Spread
    from tunesmith.data.prepared import PreparedData
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.runs import Run
    from tunesmith.training.progress import Progress
    from tunesmith.training.spec import Event

COLOURS = {"better": "green", "worse": "red", "unclear": "yellow", "alone": "cyan"}
MOST_SHOWN = 8
"""Metrics in the terminal; all are in the report."""


@click.command("evaluate")
@click.argument("run", metavar="RUN|URL")
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
@click.option(
    "--suite", "suites", multiple=True, metavar="NAME", help="Also run this suite of the test bench; several times for several."
)
@click.argument("overrides", nargs=-1, metavar="[evaluation.KEY=VALUE]…")
@served_options()
@partial(on_option, from_here=lambda given: str(given["run"]).startswith(SCHEMES))
def command(
    run: str,
    data: tuple[str, ...],
    split: str | None,
    output_dir: str,
    workers: int | None,
    suites: tuple[str, ...],
    overrides: tuple[str, ...],
    on: str | None,
    **served: Any,
) -> None:
    """Judge the model of RUN, a run's folder, URI, name, or `latest`; or of a URL, http://HOST:PORT/v2/models/NAME.

    Without options the run's own verdict is made again; other data or another split goes to a folder under evaluations/.
    Keys of the recipe's evaluation section can be given as KEY=VALUE: evaluation.fairness.groups=region.

    A server of the OpenAI protocol is openai:http://HOST:PORT/v1#MODEL.

    A served model needs --like RUN, or --data and what it does not tell itself: --task, or a --target file. The same command
    again goes on where it was stopped.
    """
    from tunesmith.runs import Run
    from tunesmith.verbs.console import out

    if run.startswith(SCHEMES):
        refuse_elsewhere(on, workers)
        told = wanted(
            run, data=parse_data(data), split=split, suites=suites, overrides=overrides, output_dir=output_dir, **served
        )
        print_served(evaluate_url(told), out())
        return
    refuse_served(served)
    opened = Run.open(run, output_dir)
    settings = settings_of(opened.recipe, suites, overrides, parse_data(data), split)
    evaluation = evaluate(opened, data=parse_data(data), split=split, settings=settings, on=on, workers=workers)
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
    settings: EvaluationSection | None = None,
    on: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **served: Unpack[ServedFiles],
) -> Evaluation:
    """Judge a run or a served model, and write the report and (for a run's own verdict) the model card. ``train`` ends so too.

    Args:
        run: a finished run, or its folder or URI; or the URL of a served model, ``http://HOST:PORT/v2/models/NAME`` or
            ``openai:http://HOST:PORT/v1#MODEL``.
        data: other labelled data: a path, glob, URI or Hub id, relative to the working directory.
        split: ``test``, ``validation`` or ``train`` of the run's own data.
        prepared: the run's prepared data, where it is open already.
        settings: how it is judged and which suites are run; as the run's recipe says where not given.
        on: the Ray cluster that judges, ``HOST:PORT``; None is this process, or with ``workers`` a Ray started here.
        workers: spread the examples over so many workers; the numbers are those of one.
        progress: where progress is shown; its own view if not given.
        served: of a URL: ``like``, ``key``, ``out`` and the others of :class:`tunesmith.verbs.evaluate_url.ServedFiles`.

    Raises:
        UserError: something that the user can mend.
    """
    if isinstance(run, str) and run.startswith(SCHEMES):
        refuse_elsewhere(on, workers)
        return evaluate_url(wanted(run, data=data, split=split, settings=settings, **served), progress=progress)
    refuse_served(served)
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
        found = evaluate_run(
            run,
            data=data,
            split=split,
            prepared=prepared,
            judges=judges,
            settings=settings,
            ready=partial(train_shadows, run, settings or run.recipe.evaluation, prepared, progress),
            progress=progress.prepared,
        )
    write_report(run, found)
    if found.folder == run.file(""):
        write_card(run, found, load_task(found.task).pipeline)
    return found


def train_shadows(run: Run, settings: EvaluationSection, prepared: PreparedData | None, progress: Progress) -> None:
    """The shadow models that the suite ``privacy`` asks for, where the run has not got them and its data is there."""
    from tunesmith.recipe.suite_names import asked

    wanted = settings.privacy.shadow_models
    if not wanted or "privacy" not in asked(settings):
        return
    from tunesmith.evaluation.suites.training_rows import data_of_training
    from tunesmith.tasks import load_task
    from tunesmith.training import shadows

    task = load_task(run.recipe.task)
    data = data_of_training(run, task, prepared)
    if isinstance(data, str):
        return  # the suite says so

    def steps(event: Event) -> None:
        """How far it is; what validation says of a shadow model interests nobody."""
        if event["kind"] in ("start", "step"):
            progress.handle(event)

    if shadows.train_shadows(run, task, data, wanted, settings.seed, phase=progress.phase, event=steps):
        progress.phase("Judging the model")


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
    from tunesmith.report import suites as suite_words
    from tunesmith.report.html import REPORT
    from tunesmith.report.words import verdict

    said = verdict(evaluation)
    console.print()
    console.print(f"[bold {COLOURS[said.tone]}]{escape(said.sentence)}[/]")
    console.print(escape(said.detail))
    console.print()
    console.print(verdict_table(evaluation))
    for text in craft_notes(evaluation, run):
        console.print(escape(text))
    for title, text in suite_words.lines(evaluation):
        console.print(f"[bold]{escape(title)}:[/] {escape(text)}")
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


def verdict_table(evaluation: Evaluation) -> Table:
    """The metrics beside the baselines."""
    from rich import box
    from rich.table import Table

    from tunesmith.evaluation.baselines import BASE_MODEL, IN_PROCESS, MAJORITY
    from tunesmith.report import words

    judged = {key: one for key, one in evaluation.baselines.items() if not one.skipped}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{evaluation.split}, n = {evaluation.n:,}")
    table.add_column("served" if evaluation.target else "fine-tuned", justify="right", style="bold")
    table.add_column(f"{100 * evaluation.confidence:g} % interval")
    titles = {BASE_MODEL: "pre-trained", MAJORITY: "guessing", IN_PROCESS: "in process"}
    for key in judged:
        table.add_column(titles.get(key, key), justify="right")
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
