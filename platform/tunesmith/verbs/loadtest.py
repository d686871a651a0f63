"""Load a served model: latency percentiles, throughput, errors, and the rate that it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.evaluation.load.connection import Endpoint
    from tunesmith.evaluation.load.figures import Figures
    from tunesmith.evaluation.load.search import Found, Step
    from tunesmith.evaluation.load.shoot import Load
    from tunesmith.evaluation.statistics import Estimate


@click.command("loadtest")
@click.argument("url")
@click.option("--like", metavar="RUN", help="The run that is served: samples of its test split are asked about.")
@click.option("--data", metavar="PLACE", help="Other labelled data whose samples are asked about.")
@click.option("--task", metavar="NAME", help="Its task, where neither the service nor --target says.")
@click.option("--target", "target_file", metavar="FILE", help="A target.yaml: its tensors and labels, or its chat.")
@click.option("--key", envvar="TUNESMITH_API_KEY", show_envvar=True, metavar="KEY", help="The service's API key.")
@click.option("--clients", type=click.IntRange(1, 1024), default=8, show_default=True, help="Of a closed loop.")
@click.option("--rate", type=click.FloatRange(min=0.1), metavar="N", help="An open loop instead: N arrivals a second, Poisson.")
@click.option("--find-rate", is_flag=True, help="Search the highest rate at which 99 % keep --slo-ms.")
@click.option("--slo-ms", type=click.FloatRange(min=0.1), metavar="MS", help="The limit that an answer must keep.")
@click.option("--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="That count, of each load.")
@click.option("--warm-up", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds before, left out.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds for an answer.")
@click.option("--batch-size", type=click.IntRange(1, 1024), default=1, show_default=True, help="Samples of a request.")
@click.option("--seed", default=42, show_default=True, help="Of the arrivals.")
@click.option("--out", metavar="FILE", help="A JSON file to write.")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
def command(
    url: str,
    like: str | None,
    data: str | None,
    task: str | None,
    target_file: str | None,
    key: str | None,
    find_rate: bool,
    out: str | None,
    output_dir: str,
    **given: Any,
) -> None:
    """Load the model at URL, http://HOST:PORT/v2/models/NAME or openai:http://HOST:PORT/v1#MODEL, with real samples.

    A closed loop (--clients) says what it does at most; an open one (--rate) how long people wait: they do not stop coming
    because a server is slow, and every latency counts from when its request was meant to be sent.
    """
    from tunesmith import storage
    from tunesmith.evaluation.load.shoot import Load, as_json, shoot
    from tunesmith.evaluation.served import Wanted
    from tunesmith.runs import Run
    from tunesmith.verbs.console import out as console

    load = Load(**given)
    if find_rate and load.slo_ms is None:
        raise UserError("--find-rate needs a limit that answers must keep\n    → Add --slo-ms, such as --slo-ms 100.")
    run = Run.open(like, output_dir) if like else None
    endpoint, requests = prepare(Wanted(url, key, run, data, task=task, target_file=target_file), load.batch_size)
    terminal = console()
    found, figures = None, None
    if find_rate:
        found = search(endpoint, requests, load, terminal)
    else:
        terminal.print(f"{load.sentence()} …", highlight=False)
        figures = shoot(endpoint, requests, load)
        show(figures, terminal)
    if out is not None:
        told = as_json(load, figures, found.steps if found else (), found.rate if found else None)
        storage.write_json(out, {"url": url, **told})
        terminal.print(f"written {out}", highlight=False, soft_wrap=True)


def prepare(wanted: Any, batch_size: int) -> tuple[Endpoint, list[bytes]]:
    """Where requests go, and those about at most 512 samples of the data."""
    from contextlib import closing
    from itertools import islice

    from tunesmith.evaluation.load.connection import Endpoint
    from tunesmith.evaluation.load.shoot import MOST_SAMPLES, requests_of
    from tunesmith.evaluation.predictions import in_blocks
    from tunesmith.evaluation.served import known_of, open_target, samples

    with closing(open_target(wanted, *known_of(wanted))) as target:
        endpoint = Endpoint.of(target.infer_url(), wanted.key)
        split = samples(wanted, target)
        return endpoint, requests_of(target, islice(in_blocks(split), MOST_SAMPLES), endpoint, batch_size)


def search(endpoint: Endpoint, requests: list[bytes], load: Load, terminal: Console) -> Found:
    """The highest rate that is stood, from half of what a closed loop does."""
    import dataclasses

    from tunesmith.evaluation.load.search import find_rate
    from tunesmith.evaluation.load.shoot import shoot

    terminal.print(f"What a closed loop of {load.clients} clients does …", highlight=False)
    most = shoot(endpoint, requests, dataclasses.replace(load, rate=None))
    terminal.print(f"  {most.throughput.value:,.1f} requests a second at most; from there, arrivals:", highlight=False)

    def told(step: Step) -> None:
        good = step.figures.goodput
        kept = f"{100 * good.value:.1f} % within {load.slo_ms:g} ms" if good is not None else ""
        mark = "[green]stood[/]" if step.stood else "[red]not stood[/]"
        p99 = step.figures.quantiles["p99"].value
        terminal.print(f"  {step.rate:8,.1f} a second: {kept}, p99 {p99:,.1f} ms  {mark}", highlight=False)
        for note in step.figures.notes:
            terminal.print(f"    [yellow]note:[/] {note}", highlight=False)

    def tried(rate: float) -> Figures:
        return shoot(endpoint, requests, dataclasses.replace(load, rate=rate), must_answer=False)

    found = find_rate(tried, most.throughput.value / 2, told)
    said = f"It stands {found.rate:,.1f} requests a second" if found.rate else "It stands no rate that was tried"
    terminal.print(f"[bold]{said}[/] (99 % within {load.slo_ms:g} ms).", highlight=False)
    return found


def show(figures: Figures, terminal: Console) -> None:
    """The figures in a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{figures.n:,} requests")
    table.add_column("", justify="right", style="bold")
    table.add_column("95 % interval")
    for name, one in figures.quantiles.items():
        table.add_row(f"{name}, ms", f"{one.value:,.1f}", _ends(one, 1))
    table.add_row("requests a second", f"{figures.throughput.value:,.1f}", _ends(figures.throughput, 1))
    table.add_row("errors", f"{100 * figures.error_rate.value:.2f} %", _ends(figures.error_rate, 2, 100, " %"))
    if figures.goodput is not None:
        table.add_row("within the limit", f"{100 * figures.goodput.value:.2f} %", _ends(figures.goodput, 2, 100, " %"))
        table.add_row("within the limit a second", f"{figures.good_per_second:,.1f}", "")
    terminal.print(table)
    failed = {status: count for status, count in figures.statuses.items() if status != "200"}
    if failed:
        listed = ", ".join(f"{count:,} × {status}" for status, count in failed.items())
        terminal.print(f"[yellow]note:[/] not answered with 200: {listed}", highlight=False)
    terminal.print(f"the client itself kept {figures.cpu:.2f} cores busy", highlight=False)
    for note in figures.notes:
        terminal.print(f"[yellow]note:[/] {note}", highlight=False)


def _ends(one: Estimate, digits: int, scale: float = 1.0, unit: str = "") -> str:
    import math

    low, high = (f"{scale * end:,.{digits}f}" if math.isfinite(end) else "–" for end in (one.low, one.high))
    return f"{low} to {high}{unit}"
