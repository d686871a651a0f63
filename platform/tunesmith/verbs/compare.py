"""Hold two judged models against one another: which is better, by how much, and what changes for whom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import click

from tunesmith.errors import UserError
from tunesmith.verbs.evaluate_url import Served, refuse_served, served_options
from tunesmith.verbs.judged import is_url, judged_place
from tunesmith.verbs.options import on_option, refuse_elsewhere

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tunesmith.evaluation.comparison import Comparison
    from tunesmith.evaluation.fairness_compared import FairnessCompared
    from tunesmith.evaluation.paired_log import Agreement

COLOURS = {"better": "green", "equivalent": "cyan", "inconclusive": "yellow", "worse": "red"}
RESULT, PAGE = "comparison.json", "comparison.html"
MOST_SHOWN = 8
"""Metrics in the terminal; all are on the page."""


@click.command("compare")
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="What the verdict is about; A's headline if not said.")
@click.option("--margin", type=float, default=0.01, show_default=True, help="How much of it may be lost, in its own unit.")
@click.option("--pairs", metavar="FILE", help="Compare two versions by the paired log of a shadow or canary.")
@click.option("--labels", metavar="FILE", help="With --pairs: the right answers, a table of id and label.")
@click.option("--model", metavar="NAME", help="With --pairs: which model, where the service has several.")
@click.option("--rollout", metavar="ID", help="With --pairs: which rollout, if not the newest of these versions.")
@click.option("--data", metavar="[NAME=]PLACE", multiple=True, help="URL: other labelled data than the run's test split.")
@served_options("like", "task", "target_file", "key", "concurrency", "batch_size", "deadline")
@click.option("--out", metavar="DIR", help="Where the page goes; beside A's files if not said.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a run that is a name is looked for."
)
@partial(on_option, from_here=lambda given: any(is_url(given[side] or "") for side in "ab"))
def command(
    a: str | None,
    b: str | None,
    metrics: tuple[str, ...],
    margin: float,
    pairs: str | None,
    labels: str | None,
    model: str | None,
    rollout: str | None,
    data: tuple[str, ...],
    out: str | None,
    as_json: bool,
    output_dir: str,
    on: str | None,
    **served: Any,
) -> None:
    """Compare A, the new one, with B: runs (folder, URI, name, `latest`), evaluations' folders, predictions.parquet, or URLs.

    Both must have been judged on the same examples; a URL is evaluated first, and needs --like RUN or --data. With --pairs, A
    and B are versions in that file, and may be left out.
    """
    from tunesmith.evaluation.results import plain
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import parse_data

    if any(is_url(side or "") for side in (a, b)):
        refuse_elsewhere(on)
    if pairs is None and labels is not None:
        raise UserError("--labels goes with --pairs\n    → Runs have their labels: leave it out")
    if pairs is None and rollout is not None:
        raise UserError("--rollout goes with --pairs\n    → Leave it out")
    if pairs is not None:
        of = {"model": model, "rollout": rollout}
        found: Comparison | Agreement = compare_pairs(pairs, a, b, **of, labels=labels, margin=margin, out=out)
    elif a is None or b is None:
        raise UserError("two models are compared\n    → `tunesmith compare A B`: the new one, and what it would replace")
    else:
        given = parse_data(data)
        found = compare(a, b, metrics=metrics, margin=margin, out=out, output_dir=output_dir, data=given, **served)
    if as_json:
        click.echo(json.dumps(plain(found), indent=2, ensure_ascii=False))
    else:
        print_comparison(found, console.out())


def compare(
    a: str,
    b: str,
    *,
    metrics: Sequence[str] = (),
    margin: float = 0.01,
    out: str | None = None,
    output_dir: str = "runs",
    data: str | Mapping[str, str] | None = None,
    **served: Unpack[Served],
) -> Comparison:
    """Hold A, the new model, against B, and write ``comparison.json`` and the page ``comparison.html``.

    Args:
        a: a run (folder, URI, name, ``latest``), an evaluation's folder, a ``predictions.parquet``, or the URL of a served
            model, which is evaluated first.
        b: the same: what A would replace.
        metrics: what the verdict is about; the headline of A's evaluation where none is named.
        margin: how much may be lost of each, in its own unit: 0.01 is a point of a share.
        out: the folder of the page; ``comparisons/NAME`` beside A's files where not said.
        output_dir: where a run that is a name is looked for.
        data: of a URL: other labelled data than the test split of the run ``like``.
        served: of a URL: ``like``, ``key`` and the others of :class:`tunesmith.verbs.evaluate_url.Served`.

    Raises:
        DataError: the two were judged on different examples.
        UserError: something else that the user can mend: a run, a metric, a margin.
    """
    from tunesmith import storage
    from tunesmith.evaluation.comparison import compare_sides
    from tunesmith.evaluation.sides import open_side
    from tunesmith.recipe.explain import safe_name

    if not (is_url(a) or is_url(b)):
        refuse_served({**served, "data": data})
    places = [judged_place(place, data=data, output_dir=output_dir, **served) for place in (a, b)]
    one, other = (open_side(place, output_dir) for place in places)
    found = compare_sides(one, other, metrics, margin)
    return _written(found, out or storage.join(one.folder, f"comparisons/{safe_name(other.name)}"))


def compare_pairs(
    file: str,
    a: str | None = None,
    b: str | None = None,
    *,
    model: str | None = None,
    rollout: str | None = None,
    labels: str | None = None,
    margin: float = 0.01,
    out: str | None = None,
) -> Comparison | Agreement:
    """Hold two versions of a served model against one another, by what both answered to the same real requests.

    Args:
        file: the ``….pairs.jsonl`` of a service with a shadow or canary.
        a: the new version; the later of two where not said.
        b: the other.
        model: whose pairs; it may be left out where the service has one.
        rollout: its id; the newest of these versions where not said, as numbers of versions are given again.
        labels: a table of ``id`` and ``label``; without it nobody knows what is right, and only agreement is told.
        margin: how much accuracy may be lost.
        out: the folder of the page; none is written where not said.

    Raises:
        UserError: a file or version that is not there, or labels that fit none of the pairs.
    """
    from tunesmith.evaluation import paired_log
    from tunesmith.evaluation.comparison import compare_sides

    pairs = paired_log.read_pairs(file, a, b, model=model, rollout=rollout)
    if labels is None:
        return paired_log.agreement(pairs)
    one, other = paired_log.labelled(pairs, labels)
    found = compare_sides(one, other, ["accuracy"], margin)
    unknown = len(pairs.answers) - found.n
    notes = [f"Of {unknown:,} more pairs nobody says what is right."] if unknown else []
    found = replace(found, warnings=[*paired_log.warnings(pairs), *notes])
    return _written(found, out) if out else found


def _written(found: Comparison, folder: str) -> Comparison:
    """``comparison.json`` and the page in the folder."""
    from tunesmith import storage
    from tunesmith.evaluation.results import plain
    from tunesmith.report.compare_page import render

    found = replace(found, folder=folder)
    storage.write_json(storage.join(folder, RESULT), plain(found))
    storage.write_text(storage.join(folder, PAGE), render(found))
    return found


def print_comparison(found: Comparison | Agreement, console: Console) -> None:
    """The verdict in a terminal: the sentence, the metrics, the flips, and where the page is."""
    from rich.markup import escape

    from tunesmith import storage
    from tunesmith.evaluation.paired_log import Agreement
    from tunesmith.report import compare_words

    console.print()
    if isinstance(found, Agreement):
        console.print(f"[bold]{escape(compare_words.agreement(found))}[/]")
        for change, count in found.changes.items():
            console.print(f"  {count:>6,}  {escape(change)}")
        for text in found.warnings:
            console.print(f"[yellow]note:[/] {escape(text)}")
        console.print("[dim]Which of the two is right needs labels: --labels FILE[/]")
        return
    console.print(f"[bold {COLOURS[found.verdict]}]{escape(compare_words.sentence(found))}[/]")
    for text in compare_words.details(found):
        console.print(escape(text))
    console.print()
    console.print(_metrics(found))
    console.print(_flips(found))
    if found.fairness is not None and "" in found.fairness.measures:
        console.print(_fairness(found.fairness))
    for text in found.warnings:
        console.print(f"[yellow]note:[/] {escape(text)}")
    if found.folder:
        console.print(f"page  {escape(storage.join(found.folder, PAGE))}", soft_wrap=True)


def _metrics(found: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    from tunesmith.report import compare_words, words

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"n = {found.n:,}")
    for title in ("A", "B"):
        table.add_column(title, justify="right")
    for title in ("A - B", f"{100 * found.confidence:g} % interval", "verdict", "p (Holm)"):
        table.add_column(title)
    rest = [name for name in found.measures if "/" not in name and not name.endswith("_weighted") and name != "loss"]
    for name in list(dict.fromkeys([*found.metrics, *rest]))[: max(MOST_SHOWN, len(found.metrics))]:
        one = found.measures[name]
        table.add_row(
            words.metric_title(name),
            words.number(name, one.a.value),
            words.number(name, one.b.value),
            words.change(name, one.difference),
            words.change_interval(name, one.difference),
            f"[{COLOURS[one.verdict]}]{one.verdict}[/]",
            compare_words.p_value(one.adjusted),
        )
    return table


def _fairness(found: FairnessCompared) -> Table:
    from rich import box
    from rich.table import Table

    from tunesmith.report import words

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("groups, the worst of all columns")
    for title in ("A", "B"):
        table.add_column(title, justify="right")
    for title in ("A - B", "interval, not paired"):
        table.add_column(title)
    for name, one in found.measures[""].items():
        values = (words.number(name, one.a.value), words.number(name, one.b.value), words.change(name, one.difference))
        table.add_row(words.metric_title(name), *values, words.change_interval(name, one.difference))
    return table


def _flips(found: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    flips = found.flips
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "B right", "B wrong"):
        table.add_column(title, justify="right" if title else "left")
    table.add_row("A right", f"{flips.both_right:,}", f"[green]{flips.fixed:,} fixed[/]")
    table.add_row("A wrong", f"[red]{flips.broken:,} broken[/]", f"{flips.both_wrong:,}")
    return table
