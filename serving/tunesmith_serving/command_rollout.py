"""``serve update``, ``promote`` and ``rollback``: a version comes in beside another one, and one of the two goes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from tunesmith_serving.gated import Gating, Passage, gate_options

if TYPE_CHECKING:
    from tunesmith_serving.change import Standing
    from tunesmith_serving.record import Record
    from tunesmith_serving.rollout import Kind

_PORT = click.argument("port", type=int, required=False, metavar="[PORT]")
_SHARE = click.FloatRange(0, 100)


@click.command("update")
@click.argument("what", nargs=-1, required=True, metavar="NAME[@VERSION]=RUN [PORT] [serving.KEY=VALUE]...")
@click.option("--canary", type=_SHARE, metavar="PERCENT", help="It answers this share of the callers only.")
@click.option("--shadow", type=_SHARE, metavar="PERCENT", help="It answers nobody, and hears this share of the requests.")
@click.option("--force", is_flag=True, help="Also where its task, labels or tensors differ from those of the version there.")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
@gate_options
def update(
    what: tuple[str, ...], canary: float | None, shadow: float | None, force: bool, output_dir: str, gating: Gating | None
) -> None:
    """Bring a new version of a model into a running service.

    The service goes on answering. Without --canary or --shadow the new version answers everyone once it is warm. The version
    there is stays warm until `promote` or `rollback`. The same command with another share changes that. Without VERSION it is
    the next free number. A model that has come through a gate is judged by it again, where no other one is named.
    """
    from tunesmith.errors import UserError
    from tunesmith_serving import change, gated
    from tunesmith_serving.record import chosen

    name, *rest = what
    settings = [one for one in rest if one.startswith("serving.")]
    ports = [one for one in rest if one not in settings]
    if len(ports) > 1 or not all(one.isdecimal() for one in ports):
        raise UserError(f"{' '.join(ports)}: not a port.\n    → `tunesmith serve update NAME=RUN [PORT] [serving.KEY=VALUE]`")
    if canary is not None and shadow is not None:
        raise UserError("--canary and --shadow exclude each other.\n    → A canary mirrors what it answers, too.")
    kind: Kind = "canary" if canary is not None else "shadow" if shadow is not None else "all"
    percent = next((one for one in (canary, shadow) if one is not None), 100.0)
    record = chosen(int(ports[0]) if ports else None)
    everyone = kind == "all" or (kind == "canary" and percent >= 100)
    passages, judged = _update_gated(record, name, gating, output_dir, everyone=everyone)
    click.echo(
        change.update(
            record,
            name,
            kind=kind,
            percent=percent,
            settings=settings,
            output_dir=output_dir,
            force=force,
            told=partial(click.echo, err=True),
            judged=judged.rollout if judged else None,
        )
    )
    if passages:
        gated.note(record.port, gated.numbered(passages, record), gated.PROMOTED if judged else gated.LET_IN)


def _update_gated(
    record: Record, what: str, gating: Gating | None, output_dir: str, *, everyone: bool
) -> tuple[list[Passage], Standing | None]:
    """How what is to answer came through its gate, where it has one: a run, or a version that comes in already.

    The latter is judged as for a promotion where it is to answer ``everyone``, and its rollout is given too. Raises
    :class:`GateFailed`.
    """
    from tunesmith.errors import UserError
    from tunesmith_serving import change, gated

    model, _, run = what.partition("=")
    name = model.partition("@")[0]
    if not run and not everyone:
        if gating is not None:
            raise UserError(f"--gate judges a run that comes in, and {what} names none.\n    → Write {model}=RUN.")
        return [], None
    if everyone and (not run or name in record.rollouts):
        gate = gated.due(gating, record, name)
        if gate is None:
            return [], None
        standing = change.standing(record, name)
        return gated.let_candidate_in(gate, record, name, standing, None), standing
    gate = gated.due_of_run(gating, record, name, everyone=everyone)
    return ([] if gate is None else gated.let_version_in(gate, record, model, run, output_dir)), None


@click.command("promote")
@click.argument("name")
@_PORT
@click.option("--labels", metavar="FILE", help="With --gate: the right answers of pairs, a table of id and label.")
@gate_options
def promote(name: str, port: int | None, labels: str | None, gating: Gating | None) -> None:
    """Keep the new version of NAME.

    The old one ends once it has answered what it has. With --gate, or where the model has come through one before, the new
    one's run is judged first, margins against the version that answers now; rules may ask for pairs/agreement, and with
    --labels for pairs/accuracy: what both versions answered to the same requests.
    """
    from tunesmith.errors import UserError
    from tunesmith_serving import change, gated
    from tunesmith_serving.record import chosen

    record = chosen(port)
    gate = gated.due(gating, record, name)
    if gate is None:
        if labels is not None:
            raise UserError("--labels goes with --gate FILE\n    → Name the gate.")
        click.echo(change.promote(record, name))
        return
    standing = change.standing(record, name)
    passages = gated.let_candidate_in(gate, record, name, standing, labels)
    click.echo(change.promote(record, name, judged=standing.rollout))
    gated.note(record.port, passages, gated.PROMOTED)


@click.command("rollback")
@click.argument("name")
@_PORT
def rollback(name: str, port: int | None) -> None:
    """Give all requests for NAME back to the old version, at once.

    The new one ends once it has answered what it has.
    """
    from tunesmith_serving import change
    from tunesmith_serving.record import chosen

    click.echo(change.rollback(chosen(port), name))
