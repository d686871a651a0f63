"""Judge whether a model may be released: the rules of a gate over what was measured, for people and for CI."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import click

from tunesmith.errors import GateFailed, UserError
from tunesmith.verbs.evaluate_url import Served, refuse_served, served_options
from tunesmith.verbs.judged import check_overrides, is_url, judged_anew, judged_place
from tunesmith.verbs.options import on_option, refuse_elsewhere

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.evaluation.against import Against
    from tunesmith.evaluation.gate import GateResult
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.evaluation.sides import Side
    from tunesmith.recipe.gate import Gate
    from tunesmith.runs import Run

FOLDER = "gate"
COLOURS = {"passed": "green", "failed": "red", "not settled": "yellow"}
BASE = "base"
"""The baseline that is the run's own pre-trained model."""
TOLD = ("expect a little less", "training rows", "does not answer as it should")
"""Parts of the evaluation's warnings that a reader of the gate must know too."""


@click.command("gate")
@click.argument("target")
@click.option("--gate", "file", metavar="FILE", help="The rules; --example writes such a file.")
@click.option("--baseline", metavar="B", help="What margins are against: a run, an evaluation's folder, or `base`.")
@click.option("--out", metavar="DIR", help="Where the files go; gate/ beside the target's if not said.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--example", is_flag=True, help="Print a gate made from the measures of TARGET.")
@click.option("--evaluate", "anew", is_flag=True, help="Judge the run again first, with the suites that the rules ask for.")
@click.option("--data", metavar="[NAME=]PLACE", multiple=True, help="URL: other labelled data than the run's test split.")
@click.argument("overrides", nargs=-1, metavar="[evaluation.KEY=VALUE]…")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a run that is a name is looked for."
)
@served_options("like", "task", "target_file", "key", "concurrency", "batch_size", "deadline", "load_seconds", "slo_ms")
@partial(on_option, from_here=lambda given: is_url(given["target"]))
def command(
    target: str,
    file: str | None,
    as_json: bool,
    example: bool,
    data: tuple[str, ...],
    output_dir: str,
    on: str | None,
    **given: Any,
) -> None:
    """Judge TARGET by the rules of a gate: a run (folder, URI, name, `latest`), an evaluation's folder, or a URL.

    A URL, http://HOST:PORT/v2/models/NAME, is evaluated first, with the suites that the rules ask for; it needs --like RUN, or
    --data and what it does not tell itself.

    Exit code 0: it passed; 3: it did not; 2: something to mend in the gate or the call.
    """
    from tunesmith.evaluation.results import plain
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import parse_data

    if is_url(target):
        refuse_elsewhere(on)
    if example:
        _print_example(target, output_dir)
        return
    if file is None:
        raise UserError(f"--gate is missing\n    → Make one with `tunesmith gate --example {target} > gate.yaml`")
    found = gate(target, file, data=parse_data(data), output_dir=output_dir, **given)
    if as_json:
        click.echo(json.dumps(plain(found), indent=2, ensure_ascii=False))
    else:
        print_gate(found, console.out())
    if not found.passed:
        from tunesmith.report.gate_words import sentence

        raise GateFailed(sentence(found))


def _print_example(target: str, output_dir: str) -> None:
    from tunesmith.evaluation.sides import open_evaluation
    from tunesmith.report.gate_example import render

    evaluation = open_evaluation(target, output_dir).evaluation
    assert evaluation is not None
    click.echo(render(evaluation), nl=False)


def gate(
    target: str,
    gate: Gate | Mapping[str, Any] | str | os.PathLike[str],
    *,
    baseline: str | None = None,
    out: str | None = None,
    anew: bool = False,
    overrides: Sequence[str] = (),
    data: str | Mapping[str, str] | None = None,
    output_dir: str = "runs",
    **served: Unpack[Served],
) -> GateResult:
    """Judge a run, an evaluation or a served model by the rules of a gate; whether it passed is ``.passed``.

    Writes ``gate.json``, ``junit.xml``, ``gate.md`` and ``gate.html``; a run's own verdict also into its model card and into
    ``model/.eval_results/``.

    Args:
        target: a run (folder, URI, name, ``latest``), an evaluation's folder, or the URL of a served model, which is evaluated
            first, with the suites that the rules ask for.
        gate: the gate's file, or its keys and values.
        baseline: what margins are against; the gate's own where not said. ``base`` is the run's pre-trained model.
        out: the folder of the files; ``gate/`` beside the target's where not said.
        anew: judge the run again first, with the suites that the rules ask for.
        overrides: ``evaluation.KEY=VALUE``, where something is evaluated first.
        data: of a URL: other labelled data than the test split of the run ``like``.
        output_dir: where a run that is a name is looked for.
        served: of a URL: ``like``, ``key`` and the others of :class:`tunesmith.verbs.evaluate_url.Served`.

    Raises:
        RecipeError: every mistake of the gate, and every measure that it asks for and that is not there.
        DataError: the baseline was judged on other examples.
        UserError: a run that is not there, or a baseline that is the judged evaluation itself.
    """
    from tunesmith.evaluation.foreseen import refuse
    from tunesmith.evaluation.sides import open_evaluation
    from tunesmith.recipe.gate import load_gate

    rules = load_gate(gate)
    check_overrides(target, overrides, anew)
    if is_url(target):
        check_baseline(rules, baseline or rules.baseline, output_dir, served.get("like"))
        asked: dict[str, Any] = {
            "data": data,
            "suites": rules.suites,
            "overrides": overrides,
            "output_dir": output_dir,
            **served,
        }
        target = judged_place(target, before=partial(refuse, rules), **asked)
    else:
        refuse_served({**served, "data": data})
        target = judged_anew(target, rules, overrides=overrides, output_dir=output_dir) if anew else target
    side = open_evaluation(target, output_dir)
    against = against_of(side, baseline or rules.baseline, output_dir)
    return judge_side(side, rules, against, out)


def check_baseline(rules: Gate, baseline: str | None, output_dir: str, like: Run | str | None) -> None:
    """What is wrong with margins, before a served model is asked.

    Raises:
        RecipeError: a margin has no baseline.
        UserError: the baseline is gone, or is the base of no run.
    """
    from tunesmith.errors import RecipeError
    from tunesmith.evaluation.gate import without_baseline
    from tunesmith.evaluation.sides import open_side

    if baseline is None:
        if mistakes := [without_baseline(rules, index) for index, rule in enumerate(rules.rules) if rule.margin is not None]:
            raise RecipeError(mistakes, of="gate")
    elif baseline != BASE:
        open_side(baseline, output_dir)
    elif like is None:
        raise UserError(
            "--baseline base: nobody knows what the served model began with\n"
            "    → Give --like RUN, or name a run or an evaluation's folder"
        )


def judge_side(side: Side, rules: Gate, against: Against | None, out: str | None = None) -> GateResult:
    """The rules over what a side's evaluation has measured, and the gate's files beside it or in ``out``.

    Raises as :func:`tunesmith.evaluation.gate.judge`.
    """
    from tunesmith import storage
    from tunesmith.evaluation.gate import GateResult, judge

    start, evaluation = time.monotonic(), side.evaluation
    assert evaluation is not None
    outcomes = judge(rules, evaluation, against)
    found = GateResult(
        target=side.name,
        baseline=against.name if against else None,
        gate=rules.file,
        passed=not any(one.blocks for one in outcomes),
        outcomes=outcomes,
        n=evaluation.n,
        split=evaluation.split,
        data_hash=evaluation.data_hash,
        confidence=evaluation.confidence,
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - start, 3),
        warnings=[text for text in evaluation.warnings if any(part in text for part in TOLD)] + _of_pairs(evaluation),
        folder=out or storage.join(side.folder, FOLDER),
    )
    _write(found, side)
    return found


def against_of(side: Side, baseline: str | None, output_dir: str = "runs", *, itself: bool = False) -> Against | None:
    """What margins are against: a run or an evaluation, ``base``, or nothing.

    ``itself`` lets it be what is judged: a version of a service may be the same run as the one that answers.
    Raises :class:`UserError` where it is gone, or is what is judged.
    """
    from tunesmith import storage
    from tunesmith.evaluation.against import AgainstBase, AgainstNothing, AgainstSide
    from tunesmith.evaluation.sides import open_side, verdict_of_run

    if baseline is None or side.evaluation is None:
        return None
    if not len(side.records):
        return AgainstNothing(baseline)
    if baseline == BASE:
        return AgainstBase(side.evaluation, verdict_of_run(side))
    other = open_side(baseline, output_dir)
    if not itself and other.evaluation is not None and storage.absolute(other.folder) == storage.absolute(side.folder):
        raise UserError(
            f"--baseline {baseline}: the judged evaluation itself, in {side.folder}; nothing is worse than itself\n"
            "    → Name the model that is in use, or `base` for the run's own pre-trained model"
        )
    return AgainstSide(side, other, side.evaluation.confidence)


def _of_pairs(evaluation: Evaluation) -> list[str]:
    return evaluation.suites["pairs"].notes if "pairs" in evaluation.suites else []


def _write(found: GateResult, side: Side) -> None:
    """The files of the gate; of a run's own verdict the card and the Hub's results too."""
    from tunesmith import storage
    from tunesmith.evaluation.results import plain
    from tunesmith.report import eval_results, gate_page, gate_words, junit
    from tunesmith.report.card import write_card

    storage.write_json(storage.join(found.folder, "gate.json"), plain(found))
    storage.write_text(storage.join(found.folder, "junit.xml"), junit.render(found))
    storage.write_text(storage.join(found.folder, "gate.md"), gate_words.markdown(found))
    storage.write_text(storage.join(found.folder, "gate.html"), gate_page.render(found))
    run, evaluation = side.run, side.evaluation
    if run is not None and evaluation is not None and found.folder == run.file(FOLDER) and side.task is not None:
        write_card(run, evaluation, side.task.pipeline)
        eval_results.write(run, evaluation, found.date)


def print_gate(found: GateResult, console: Console) -> None:
    """The sentence, a line for each rule, and where the files are."""
    from rich.markup import escape

    from tunesmith.report import gate_words

    console.print()
    console.print(f"[bold {'green' if found.passed else 'red'}]{escape(gate_words.sentence(found))}[/]")
    against = f", against {found.baseline}" if found.baseline else ""
    console.print(escape(f"{found.target}, {found.n:,} examples of the {found.split} split{against}"))
    console.print()
    for one in found.outcomes:
        sign = f"[{COLOURS[one.status]}]{gate_words.SIGNS[one.status]}[/]"
        through = " [dim](let through)[/]" if one.status == "not settled" and not one.blocks else ""
        console.print(f"{sign} {escape(gate_words.plain_line(one.name))}{through}\n  [dim]{escape(gate_words.line(one))}[/]")
    for text in found.warnings:
        console.print(f"[yellow]note:[/] {escape(text)}")
    console.print(f"files  {escape(found.folder)}", soft_wrap=True)
