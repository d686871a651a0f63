"""List the runs, newest first or best first, and filter them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from rich.table import Table

    from tunesmith.runs import Run


@click.command("runs")
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--output-dir", default="runs", show_default=True, metavar="DIR", help="Where the runs are: a folder or URI.")
@click.option("--task", metavar="TASK", help="Only runs of this task.")
@click.option("--status", type=click.Choice(["running", "interrupted", "failed", "done"]), help="Only runs that stand so.")
@click.option("--sort", metavar="METRIC", help="Best first by this metric, instead of newest first.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_option
def command(
    filters: tuple[str, ...],
    output_dir: str,
    task: str | None,
    status: str | None,
    sort: str | None,
    limit: int | None,
    as_json: bool,
    on: str | None,  # where it is a dashboard's address, the command was submitted there as a job before it comes here
) -> None:
    """List runs that pass every FILTER.

    A FILTER compares a metric, or a key of the recipe or the manifest: 'accuracy>0.9', 'training.learning_rate<=3e-5',
    'model.model_name_or_path~bert' (~ is contains). Quote it, as < and > mean something to the shell.
    """
    from tunesmith.runs import find_runs
    from tunesmith.verbs.console import out

    found = find_runs(output_dir, filters, task=task, status=status)
    if sort is not None:
        found = best_first(found, sort)
    found = found[:limit]
    if as_json:
        click.echo(json.dumps([record(run) for run in found], indent=2, ensure_ascii=False))
    elif found:
        out().print(table(found, sort), soft_wrap=False)
    else:
        such = " that pass" if filters or task or status else ""
        click.echo(f"no runs{such} in {output_dir}", err=True)


def best_first(runs: Sequence[Run], metric: str) -> list[Run]:
    """The runs by a metric of the verdict, best first; those without it last. Raises :class:`UserError` if none has it."""
    from tunesmith.errors import UserError, nearest
    from tunesmith.recipe.hf_names import LOWER_IS_BETTER

    values = {run.path: run.metrics.get(metric) for run in runs}
    if runs and not any(value is not None for value in values.values()):
        known = sorted({name for run in runs for name in run.metrics})
        near = nearest(metric, known)
        fix = f"Did you mean {near}?" if near else f"They have {', '.join(known) or 'no verdict yet'}."
        raise UserError(f"--sort {metric}: none of these {len(runs)} runs has that metric.\n    → {fix}")
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def key(run: Run) -> float:
        value = values[run.path]
        return float("inf") if value is None else sign * value

    return sorted(runs, key=key)


def record(run: Run) -> dict[str, Any]:
    """One run as plain data."""
    about = {key: run.manifest.get(key) for key in ("task", "created", "finished", "steps", "base_model", "recipe_fingerprint")}
    return {"name": run.name, "path": run.path, "status": run.status, **about, "metrics": run.estimates}


def table(runs: Sequence[Run], metric: str | None = None) -> Table:
    """The runs as a table; ``metric`` is shown instead of each task's headline."""
    from rich.markup import escape
    from rich.table import Table

    from tunesmith.runs.words import formatted

    colours = {"done": "green", "running": "cyan", "interrupted": "yellow", "failed": "red"}
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("RUN", overflow="fold")
    for title in ("STATUS", "TASK", "CREATED", "STEPS", "VERDICT"):
        shown.add_column(title, overflow="fold", justify="right" if title == "STEPS" else "left")
    for run in runs:
        estimates = run.estimates
        chosen = metric or run.verdict.get("headline") or next(iter(estimates), None)
        status, steps = run.status, run.manifest.get("steps")
        shown.add_row(
            run.name,
            f"[{colours[status]}]{status}[/]",
            str(run.manifest.get("task", "")),
            local_time(run.manifest.get("created")),
            f"{steps:,}" if isinstance(steps, int) else "",
            escape(f"{chosen} {formatted(estimates[chosen])}") if chosen in estimates else "",
        )
    return shown


def local_time(stamp: Any) -> str:
    """A time of the manifest in this machine's time zone, to the minute.

    >>> local_time(None), local_time("no time")
    ('', 'no time')
    """
    import datetime as dt

    try:
        return dt.datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M")
    except (TypeError, ValueError):
        return str(stamp or "")
