"""What ``tunesmith evaluate URL`` does: judge a served model, show the verdict, write the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from tunesmith.errors import UserError
from tunesmith.evaluation.openai_url import PREFIX, is_openai
from tunesmith.verbs.evaluation_settings import settings_alone, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.evaluation.results import Evaluation
    from tunesmith.evaluation.served import Before, Wanted
    from tunesmith.recipe.evaluation import EvaluationSection
    from tunesmith.runs import Run
    from tunesmith.training.progress import Progress

SCHEMES = ("http://", "https://", PREFIX)


class Served(TypedDict, total=False):
    """What only a served model takes; whatever is left out or None is as :mod:`tunesmith.evaluation.served` has it."""

    like: Run | str | None
    """The run that it should answer like: whose recipe, labels and test split are used."""
    key: str | None
    task: str | None
    target_file: str | None
    concurrency: int | None
    batch_size: int | None
    deadline: float | None
    load_seconds: float | None
    slo_ms: float | None


class ServedFiles(Served, total=False):
    """Where its files go, too."""

    out: str | None
    overwrite: bool


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "like": click.option(
        "--like", metavar="RUN", help="URL: the run that it should answer like; its test split and labels are used."
    ),
    "task": click.option("--task", metavar="NAME", help="URL: its task, where neither the service nor --target says."),
    "target_file": click.option(
        "--target", "target_file", metavar="FILE", help="URL: a target.yaml: its tensors and labels, or its chat."
    ),
    "key": click.option(
        "--key", envvar="TUNESMITH_API_KEY", show_envvar=True, metavar="KEY", help="URL: the service's API key."
    ),
    "concurrency": click.option("--concurrency", type=click.IntRange(1, 256), help="URL: requests at a time; 8 if not said."),
    "batch_size": click.option("--batch-size", type=click.IntRange(1, 1024), help="URL: samples of a request; 32 if not said."),
    "deadline": click.option(
        "--deadline", type=click.FloatRange(min=1), metavar="SECONDS", help="URL: of a request, repeated; 300."
    ),
    "out": click.option("--out", metavar="DIR", help="URL: the folder to write; a new one under evaluations/ if not said."),
    "load_seconds": click.option(
        "--load-seconds", type=click.FloatRange(min=1), metavar="S", help="URL: load it for so long too (loadtest)."
    ),
    "slo_ms": click.option("--slo-ms", type=click.FloatRange(min=0.1), metavar="MS", help="URL: the limit of that load."),
    "overwrite": click.option(
        "--overwrite", is_flag=True, help="URL: ask about everything again, and replace what is in --out."
    ),
}
"""What only a served model takes, by the parameter's name."""

Verb = TypeVar("Verb", bound=Callable[..., Any])


def served_options(*names: str) -> Callable[[Verb], Verb]:
    """Adds options of a served model: those named, or all of them."""

    def add(verb: Verb) -> Verb:
        for name in reversed(names or tuple(OPTIONS)):
            verb = OPTIONS[name](verb)
        return verb

    return add


def refuse_served(given: Mapping[str, Any]) -> None:
    """Raises :class:`UserError` where a run is judged with an option that only a served model takes."""
    named = {"target_file": "target"}
    wrong = next((name for name, value in given.items() if value and name != "key"), None)
    if wrong is not None:
        raise UserError(
            f"--{named.get(wrong, wrong).replace('_', '-')} is for a served model, and this is a run\n"
            "    → Leave it out, or give http://HOST:PORT/v2/models/NAME instead of the run."
        )


def wanted(
    url: str,
    *,
    data: str | Mapping[str, str] | None = None,
    split: str | None = None,
    settings: EvaluationSection | None = None,
    suites: Sequence[str] = (),
    overrides: Sequence[str] = (),
    output_dir: str = "runs",
    **given: Unpack[ServedFiles],
) -> Wanted:
    """What a served model is judged on, and how: as the run that it should answer like has it, with what is given beside.

    Raises :class:`UserError` where there is no such run, or no such suite or key.
    """
    from tunesmith.evaluation.served import Wanted
    from tunesmith.evaluation.service import Asking
    from tunesmith.runs import Run

    if is_openai(url) and (given.get("batch_size") or 1) > 1:
        raise UserError(
            "--batch-size: a server of the OpenAI protocol is asked about one sample a request\n    → Leave it out."
        )
    like = given.get("like")
    run = Run.open(like, output_dir) if isinstance(like, str) else like
    if settings is None:
        settings = settings_of(run.recipe, suites, overrides, data, split) if run else settings_alone(suites, overrides)
    rest: dict[str, Any] = {name: value for name, value in given.items() if value is not None and name != "like"}
    asking = Asking(**{name: rest.pop(name) for name in ("concurrency", "batch_size", "deadline") if name in rest})
    return Wanted(url, like=run, data=data, split=split, settings=settings, asking=asking, **rest)


def evaluate_url(wanted: Wanted, *, progress: Progress | None = None, before: Before | None = None) -> Evaluation:
    """Judge the served model, and write ``report.html`` beside its other files; ``before`` is called before anything is asked.

    Raises:
        UserError: something that the user can mend, the server's answers included.
    """
    from tunesmith.evaluation import served
    from tunesmith.evaluation.openai_url import address_of
    from tunesmith.report.html import write_report
    from tunesmith.training.progress import Progress as View
    from tunesmith.verbs.console import err

    address = address_of(wanted.url)
    if address.in_the_clear:
        click.echo(f"warning: the key and the data go to {address.root} unencrypted; use https", err=True)
    with View(err()) as view:
        progress = progress or view
        progress.phase(f"Asking {address.root}")
        found = served.evaluate_url(wanted, progress.prepared, before)
    write_report(wanted.like, found)
    return found


def print_served(found: Evaluation, console: Console) -> None:
    """The verdict in a terminal, and whether the served model answers as it should."""
    from rich.markup import escape

    from tunesmith import storage
    from tunesmith.report import retention, suites
    from tunesmith.report.html import REPORT
    from tunesmith.report.words import verdict
    from tunesmith.verbs.evaluate import COLOURS, verdict_table

    told = verdict(found)
    console.print()
    console.print(f"[bold {COLOURS[told.tone]}]{escape(told.sentence)}[/]")
    console.print(escape(told.detail))
    console.print()
    console.print(verdict_table(found))
    for note in found.suites["parity"].notes:
        console.print(escape(note))
    for name, one in found.retention.items():
        console.print(escape(retention.sentence(name, one, found.headline)))
    for title, text in suites.lines(found):
        console.print(f"[bold]{escape(title)}:[/] {escape(text)}")
    for warning in found.warnings:
        console.print(f"[yellow]note:[/] {escape(warning)}")
    console.print(f"report  {escape(storage.join(found.folder, REPORT))}", soft_wrap=True)
