"""The release gate before a service: only what passes is let in, and what was let in by which gate is written down.

A model that has come through a gate once goes on coming through it: its versions are judged by it where no other one is named.
Nothing of a service is touched before its gate is judged. ``--despite-gate`` lets in what does not pass; that is said loudly,
and stands in the service's record and log beside what did not hold.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tunesmith.errors import GateFailed, UserError
from tunesmith_serving.record import Record, chosen, rewrite

if TYPE_CHECKING:
    from tunesmith.evaluation.against import Against
    from tunesmith.evaluation.gate import GateResult
    from tunesmith.evaluation.sides import Side
    from tunesmith.recipe.gate import Gate
    from tunesmith_serving.change import Standing

EVENT = "gate"
"""The event in the service's log."""
LET_IN, PROMOTED = "let in", "promoted"
"""What a model's gates are remembered by in the service's record."""


@dataclass(frozen=True)
class Gating:
    """The gate of a command, as it was asked for."""

    file: str = ""
    """Nothing where the one is meant that the service's record remembers."""
    baseline: str | None = None
    despite: bool = False
    """Let in what does not pass too."""


Verb = TypeVar("Verb", bound=Callable[..., Any])


def gate_options(verb: Verb) -> Verb:
    """Adds ``--gate``, ``--baseline`` and ``--despite-gate``; the verb has them as ``gating``, None where none is given."""

    @click.option("--gate", "gate_file", metavar="FILE", help="Only what passes this gate is let in; else exit code 3.")
    @click.option("--baseline", metavar="B", help="What margins of the gate are against: a run, or an evaluation's folder.")
    @click.option("--despite-gate", is_flag=True, help="Let in what does not pass too; it is said, and written down.")
    @functools.wraps(verb)
    def gated(*args: Any, gate_file: str | None, baseline: str | None, despite_gate: bool, **rest: Any) -> Any:
        given = Gating(gate_file or "", baseline, despite_gate)
        return verb(*args, gating=given if given != Gating() else None, **rest)

    return gated  # type: ignore[return-value]


@dataclass(frozen=True)
class Passage:
    """How a version of a model came through its gate."""

    model: str
    """``NAME``, or ``NAME@VERSION`` where the version is known."""
    run: str
    gate: str
    passed: bool
    said: str
    """The gate's sentence."""
    date: str

    def words(self) -> str:
        """For the record and ``serve status``.

        >>> Passage("m@1", "runs/a", "gate.yaml", True, "The gate passed: 2 of 2 rules hold", "2026-11-26T02:00").words()
        'gate.yaml, 2026-11-26T02:00: The gate passed: 2 of 2 rules hold'
        """
        despite = "" if self.passed else "LET IN DESPITE ITS GATE: "
        return f"{despite}{self.gate}, {self.date}: {self.said}"


def due(gating: Gating | None, record: Record, model: str) -> Gating | None:
    """The gate of a version that comes in already, and is to answer everyone; None for a model without a gate.

    It is the one that is named, else that of the model's last promotion, else the one that let a version in.

    Raises:
        UserError: there is no gate, and something is said about it.
    """
    files = record.gate_files.get(model, {})
    return _named(gating) or _again(gating, model, files.get(PROMOTED) or files.get(LET_IN))


def due_of_run(gating: Gating | None, record: Record | None, model: str, *, everyone: bool = True) -> Gating | None:
    """The gate of a run that comes in; None for a model without a gate.

    It is the one that is named, else the one that let a version in, else that of the last promotion. A run has no pairs yet: a
    remembered gate that asks for some is passed over. Where there is no other, the run is refused that is to answer
    ``everyone`` (with ``--despite-gate`` it is let in unjudged); a canary or a shadow comes in to gather them.

    Raises:
        UserError: nothing could judge what comes in; or there is no gate, and something is said about it.
    """
    files = record.gate_files.get(model, {}) if record is not None else {}
    remembered = [files[which] for which in (LET_IN, PROMOTED) if which in files]
    if _named(gating) is not None or not remembered:
        return _named(gating) or _again(gating, model, None)
    file = next((one for one in remembered if not _wants_pairs(one)), None)
    if file is None and not everyone:
        click.echo(f"{model} comes in unjudged, to gather the pairs that {remembered[-1]} asks for", err=True)
        return None
    if file is None and not (gating and gating.despite):
        raise UserError(
            f"{model} has come through {remembered[-1]}, which asks for pairs of a rollout: a run that comes in has none.\n"
            f"    → Name a --gate FILE without pairs; or, where the service writes pairs (not on a cluster), `tunesmith serve "
            f"update {model}=RUN --canary 10`, then `tunesmith serve promote {model}` judges by them."
        )
    return _again(gating, model, file or remembered[-1])


def _named(gating: Gating | None) -> Gating | None:
    return gating if gating is not None and gating.file else None


def _again(gating: Gating | None, model: str, file: str | None) -> Gating | None:
    """A gate that is remembered, with what is said about it. Raises :class:`UserError` where there is none."""
    if file is not None:
        click.echo(f"{model} has come through {file}: judged by it again (--gate FILE names another)", err=True)
        return replace(gating or Gating(), file=file)
    if gating is not None:
        raise UserError(f"{'--baseline' if gating.baseline else '--despite-gate'} goes with --gate FILE\n    → Name the gate.")
    return None


def _wants_pairs(file: str) -> bool:
    from tunesmith.recipe.gate import load_gate

    return _asks_for_pairs(load_gate(file))


def let_in(gating: Gating, models: Mapping[str, str], output_dir: str = "runs") -> list[Passage]:
    """Judge the run of each model (``NAME@VERSION`` → run) as ``tunesmith gate`` does; each run once, all before any refusal.

    ``output_dir`` is where a baseline that is a name is looked for.

    Raises:
        GateFailed: one does not pass, without ``--despite-gate``.
        UserError: what is wrong with the gate, or that a run has not been judged.
    """
    from tunesmith.verbs.gate import gate

    if gating.despite and _wants_pairs(gating.file):
        return _unjudged(gating, models)
    judge = functools.partial(gate, gate=gating.file, baseline=gating.baseline, output_dir=output_dir)
    found = {run: judge(run) for run in dict.fromkeys(models.values())}
    return settled(gating, {name: (run, found[run]) for name, run in models.items()})


def let_version_in(gating: Gating, record: Record, model: str, run: str, output_dir: str) -> list[Passage]:
    """Judge a run that comes into a service as ``model`` (``NAME[@VERSION]``). Raises as :func:`let_in`."""
    from tunesmith.evaluation.sides import open_evaluation
    from tunesmith.recipe.gate import load_gate
    from tunesmith.verbs.gate import judge_side
    from tunesmith_serving import change

    rules = load_gate(gating.file)
    if gating.despite and _asks_for_pairs(rules):
        return _unjudged(gating, {model: run})
    side = open_evaluation(run, output_dir)
    answering = functools.partial(change.answering, record, model.partition("@")[0])
    found = judge_side(side, rules, _against(side, rules, gating, answering, output_dir))
    return settled(gating, {model: (run, found)}, record)


def _unjudged(gating: Gating, models: Mapping[str, str]) -> list[Passage]:
    """Let in despite a gate that cannot judge what comes in."""
    date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    said = "not judged: its rules on pairs need a rollout"
    passages = [Passage(model, run, gating.file, False, said, date) for model, run in models.items()]
    _warn(passages)
    return passages


def let_candidate_in(gating: Gating, record: Record, name: str, standing: Standing, labels: str | None) -> list[Passage]:
    """Judge the version that comes in: its run, against the version's that answers now, and the pairs of the rollout.

    Raises as :func:`let_in`; :class:`DataError` too where rules ask for pairs and there are none.
    """
    from tunesmith.evaluation.sides import open_evaluation
    from tunesmith.recipe.gate import load_gate
    from tunesmith.verbs.gate import judge_side

    rules, run = load_gate(gating.file), standing.candidate_run
    side = open_evaluation(run)
    against = _against(side, rules, gating, lambda: standing.stable_run)
    if labels is not None or _asks_for_pairs(rules):
        side, against = _with_traffic(side, record, name, standing, labels, against)
    return settled(gating, {f"{name}@{standing.candidate}": (run, judge_side(side, rules, against))}, record)


def _against(side: Side, rules: Gate, gating: Gating, answering: Callable[[], str], output_dir: str = "runs") -> Against | None:
    """What margins are against: what is named, else the run of the version that answers now."""
    from tunesmith.verbs.gate import against_of

    if not rules.has_margins:
        return None
    named = gating.baseline or rules.baseline
    return against_of(side, named or answering(), output_dir, itself=named is None)


def _asks_for_pairs(rules: Gate) -> bool:
    return any(rule.measure.partition("/")[0] == "pairs" for rule in rules.rules)


def _with_traffic(
    side: Side, record: Record, name: str, standing: Standing, labels: str | None, against: Against | None
) -> tuple[Side, Against]:
    from tunesmith.evaluation.paired_log import read_pairs
    from tunesmith.evaluation.traffic import with_traffic

    if not record.log:
        raise UserError(f"{record.url} is a service of a cluster, which writes no pairs down\n    → Leave rules on pairs out.")
    file = record.log.removesuffix(".jsonl") + ".pairs.jsonl"
    pairs = read_pairs(file, standing.candidate, standing.stable, model=name, rollout=standing.rollout)
    assert side.evaluation is not None
    evaluation, with_pairs = with_traffic(side.evaluation, pairs, labels, against)
    return replace(side, evaluation=evaluation), with_pairs


def settled(gating: Gating, found: Mapping[str, tuple[str, GateResult]], record: Record | None = None) -> list[Passage]:
    """Print every verdict; refuse what does not pass, or say loudly that it is let in. ``record`` is of the service that stays.

    Raises :class:`GateFailed`.
    """
    from tunesmith.report.gate_words import sentence
    from tunesmith.verbs import console
    from tunesmith.verbs.gate import print_gate

    for verdict in {id(one): one for _, one in found.values()}.values():
        print_gate(verdict, console.err())
    passages = [Passage(name, run, gating.file, one.passed, sentence(one), one.date) for name, (run, one) in found.items()]
    refused = [one for one in passages if not one.passed]
    if refused and not gating.despite:
        if record is not None:
            log(record, refused, let_in=False)
        names = ", ".join(one.model for one in refused)
        raise GateFailed(f"{names} is not let in, and nothing has changed. {refused[0].said}")
    _warn(refused)
    return passages


def _warn(refused: Iterable[Passage]) -> None:
    for one in refused:
        words = f"warning: {one.model} is let in although it does not pass {one.gate} (--despite-gate)"
        click.secho(words, fg="red", bold=True, err=True)


def numbered(passages: Iterable[Passage], before: Record) -> list[Passage]:
    """The same with the version that the model was given: the one that the service had not before."""
    known = {one.partition(" ")[0] for one in before.models}
    new = {one.partition(" ")[0] for one in chosen(before.port).models} - known
    return [
        replace(one, model=next((name for name in new if name.partition("@")[0] == one.model.partition("@")[0]), one.model))
        for one in passages
    ]


def note(port: int, passages: Iterable[Passage], which: str = LET_IN) -> None:
    """Write down in the service's record and log what was let in by which gate, or promoted; the next version has it too."""
    from tunesmith import storage

    passages = list(passages)

    def noted(now: Record) -> Record:
        there = {one.partition(" ")[0] for one in now.models}
        gates = {name: words for name, words in now.gates.items() if name in there}
        files = {name: dict(known) for name, known in now.gate_files.items()}
        for one in passages:
            files.setdefault(one.model.partition("@")[0], {})[which] = storage.absolute(one.gate)
        return replace(now, gates=gates | {one.model: one.words() for one in passages}, gate_files=files)

    log(rewrite(chosen(port), noted), passages, let_in=True)


def log(record: Record, passages: Iterable[Passage], *, let_in: bool) -> None:
    """Add a line for each to the service's log; a service on a cluster has none."""
    if not record.log:
        return
    lines = []
    for one in passages:
        name, _, version = one.model.partition("@")
        about = {"model": name, "version": version or None, "run": one.run, "gate": one.gate, "passed": one.passed}
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        level = "info" if one.passed else "warning"
        lines.append({"time": when, "level": level, "event": EVENT, **about, "let_in": let_in, "said": one.said})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    file = os.open(record.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)  # the door writes there too: a line is one write
    try:
        os.write(file, text)
    finally:
        os.close(file)
