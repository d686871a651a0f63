"""Answer the rows of a file with a run's model, or a service's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tunesmith.evaluation.targets import Target
    from tunesmith_serving.answers import Outcome


@click.command("predict")
@click.argument("run", metavar="RUN|URL")
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="answers.parquet",
    show_default=True,
    metavar="FILE",
    help="The Parquet file to write.",
)
@click.option("--key", envvar="TUNESMITH_API_KEY", show_envvar=True, metavar="KEY", help="The service's API key.")
@click.option(
    "--column", "columns", multiple=True, metavar="ROLE=NAME", help="Which column is which input, where the name does not say."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests to a service at a time."
)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=32, show_default=True, help="Samples of a request.")
@click.option(
    "--deadline", type=click.FloatRange(1), default=300.0, show_default=True, metavar="SECONDS", help="Of a request, repeated."
)
@click.option("--overwrite", is_flag=True, help="Replace FILE, though it is of something else.")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
def command(
    run: str,
    data: str,
    out: Path,
    key: str | None,
    columns: tuple[str, ...],
    concurrency: int,
    batch_size: int,
    deadline: float,
    overwrite: bool,
    output_dir: str,
) -> None:
    """Answer the rows of DATA with the model of RUN, in this process, or with that of a service.

    RUN is a run's folder, URI, name, or `latest`; a URL is http://HOST:PORT/predict/NAME. DATA is a CSV, JSON or Parquet file,
    a folder of images, a glob, a URI or a Hub id. The same command again goes on where it was stopped.
    """
    from tunesmith.training.progress import Progress
    from tunesmith.verbs.console import err
    from tunesmith_serving.answers import answer

    said = _columns(columns)
    with Progress(err()) as progress, _target(run, key, output_dir, concurrency, batch_size, deadline) as target:
        progress.phase(f"Asking {target.name} (version {target.version})")
        told = lambda done, total: progress.prepared("Answering rows", done, total)  # noqa: E731
        outcome = answer(target, data, out, said, told, overwrite=overwrite)
    _tell(outcome)


@contextmanager
def _target(run: str, key: str | None, output_dir: str, concurrency: int, batch_size: int, deadline: float) -> Iterator[Target]:
    """The model in this process, or the client of a service."""
    if run.startswith(("http://", "https://")):
        from tunesmith_serving.client import Client

        with Client(run, key, concurrency=concurrency, batch_size=batch_size, deadline=deadline) as client:
            if client.in_the_clear:
                click.echo(f"warning: the key and the data go to {client.url} unencrypted; use https", err=True)
            yield client
        return
    from tunesmith.evaluation.predictor import Predictor
    from tunesmith.evaluation.targets import Here
    from tunesmith.runs import Run

    opened = Run.open(run, output_dir)
    yield Here(Predictor.load(opened.local_model()), str(opened.manifest.get("name") or opened.name), opened.name)


def _columns(given: tuple[str, ...]) -> dict[str, str]:
    from tunesmith.errors import UserError

    found: dict[str, str] = {}
    for one in given:
        role, equals, name = one.partition("=")
        if not (role and equals and name):
            raise UserError(f"--column {one} names no role and column\n    → Write --column text=review.")
        found[role] = name
    return found


def _tell(outcome: Outcome) -> None:
    """One line, and the rows without an answer. Raises :class:`UserError` where there are any."""
    from tunesmith.errors import DataError

    resumed = f", {outcome.resumed:,} of them before" if outcome.resumed else ""
    click.echo(f"{outcome.answered:,} of {outcome.rows:,} rows answered{resumed}: {outcome.path}")
    if outcome.bad:
        more = f"\n    … and {outcome.bad - len(outcome.problems):,} more" if outcome.bad > len(outcome.problems) else ""
        listed = "\n    ".join(outcome.problems)
        raise DataError(
            f"{outcome.bad:,} of {outcome.rows:,} rows have no answer; the column problem says why:\n    {listed}{more}"
        )
