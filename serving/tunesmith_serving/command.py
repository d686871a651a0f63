"""Serve fine-tuned models over HTTP, behind API keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith_serving.command_keys import keys
from tunesmith_serving.command_rollout import promote, rollback, update
from tunesmith_serving.gated import Gating, Passage, gate_options

if TYPE_CHECKING:
    from tunesmith_serving.plan import Planned
    from tunesmith_serving.record import Record


class Serve(click.Group):
    """``serve RUN`` is ``serve start RUN``: whatever is no subcommand names a run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments, with ``start`` put before them where no subcommand is named."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group("serve", cls=Serve, subcommand_metavar="RUN... [OPTIONS] | SUBCOMMAND")
def command() -> None:
    """Serve fine-tuned models over HTTP, behind API keys.

    `tunesmith serve RUN...` answers on this machine until Ctrl-C. Its options: `tunesmith serve start --help`.
    """


@command.command("start")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port on 127.0.0.1; a free one if not said.")
@click.option("--detach", is_flag=True, help="Come back once the service is ready; it goes on by itself.")
@click.option("--on", metavar="HOST:PORT", help="A running Ray cluster to deploy to, instead of a Ray of this machine.")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Only write the configuration that `serve deploy` and KubeRay take.",
)
@click.option("--host", metavar="ADDRESS", help="With --write: where it listens, if not on 127.0.0.1: 0.0.0.0 in a pod.")
@click.option(
    "--keys",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file of API keys, if not the user's own.",
)
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
@gate_options
def start(
    runs: tuple[str, ...],
    port: int | None,
    detach: bool,
    on: str | None,
    write: Path | None,
    host: str | None,
    keys: Path | None,
    output_dir: str,
    gating: Gating | None,
) -> None:
    """Serve each RUN: a run's folder, URI, name, or `latest`.

    NAME=RUN and NAME@VERSION=RUN name the model; otherwise its name is the run's, and its version 1. The first version given of
    a model is the one that answers where none is asked for. serving.KEY=VALUE changes a setting of the runs' recipes.
    """
    from tunesmith.cluster.ports import LOOPBACK
    from tunesmith_serving import service
    from tunesmith_serving.keys import KeyFile, default_place
    from tunesmith_serving.plan import planned, serve_yaml
    from tunesmith_serving.record import records, state_folder

    models = planned(runs, output_dir)
    if write is None:
        _refuse_dashboard(on)
        _refuse_host(host)
    there = next((one for one in records() if on is not None and one.on == on), None)
    if write is None:
        _refuse_other_port(port, there)
    passages = _gated(models, gating, there, output_dir)
    file = KeyFile(keys or default_place())
    if write is not None:
        _write(write, serve_yaml(models, str(file.path.absolute()), port or 8000, host or LOOPBACK), host)
        return
    any_port = port is None
    port = there.port if there is not None else service.choose_port(port)
    _make_first_key(file)
    names = ", ".join(
        dict.fromkeys(f"{one.name} (version {one.version}, {one.task}, {one.settings.backend})" for one in models)
    )
    if on is not None:
        place = str(file.path.absolute())
        deployed = service.deploy(models, keys=place, port=port, on=on, before=there, any_port=any_port)
        _tell(deployed.url, names, passages)
    elif detach:
        passed = [*runs, "--output-dir", output_dir, *(["--keys", str(keys)] if keys else [])]
        record = service.detach(passed, port)
        _tell(record.url, names, passages)
        click.echo(f"it goes on as process {record.pid}: `tunesmith serve status`, `tunesmith serve stop {record.port}`")
    else:
        click.echo(f"starting: {names}", err=True)
        service.run(
            models,
            keys=str(file.path.absolute()),
            port=port,
            log_folder=state_folder(),
            told=lambda url: _tell(url, names, passages),
        )
        click.echo("stopped", err=True)


def _refuse_dashboard(on: str | None) -> None:
    from tunesmith.errors import UserError

    if on is not None and on.startswith(("http://", "https://")):
        raise UserError(
            f"--on {on} is the address of a dashboard, and a service is not a job.\n"
            f"    → Join from one of the cluster's nodes (--on HOST:6379), or --write serve.yaml and `serve deploy -a {on}`."
        )


def _refuse_host(host: str | None) -> None:
    from tunesmith.errors import UserError

    if host is not None:
        raise UserError(
            f"--host {host} goes with --write: a service of this machine listens on 127.0.0.1 alone.\n"
            "    → To let others in, put a proxy with TLS before it."
        )


def _refuse_other_port(port: int | None, there: Record | None) -> None:
    from tunesmith.errors import UserError

    if there is not None and port not in (None, there.port):
        raise UserError(
            f"--port {port}: the service at {there.on} listens at {there.port}, and Ray Serve keeps its port while it runs.\n"
            f"    → Leave --port away, or `tunesmith serve stop {there.port}` first."
        )


def _write(file: Path, text: str, host: str | None) -> None:
    """Write the configuration, and say what is open where others reach it."""
    from tunesmith import storage
    from tunesmith.cluster.ports import LOOPBACK

    storage.write_text(file, text)
    click.echo(f"wrote {file}: deploy it with `serve deploy {file}`")
    if host not in (None, LOOPBACK, "localhost"):
        click.secho(
            f"warning: it listens at {host}, without TLS: keys, inputs and answers can be read on the way.\n"
            "    → Put TLS before it (an Ingress, a mesh), and let nobody else reach the port. Keys are asked for there too.",
            fg="red",
            bold=True,
            err=True,
        )


def _make_first_key(file: object) -> None:
    """A service without a key would answer nobody: make one, and show it once."""
    from tunesmith_serving.keys import KeyFile

    assert isinstance(file, KeyFile)
    if not file.all():
        click.echo(f"API key \u201cfirst\u201d, shown this once: {file.add('first')}")


def _gated(models: Sequence[Planned], gating: Gating | None, there: Record | None, output_dir: str) -> list[Passage]:
    """How each model came through its gate, where it has one. Raises :class:`GateFailed`."""
    from tunesmith_serving import gated

    gates = {name: gated.due_of_run(gating, there, name) for name in dict.fromkeys(one.name for one in models)}
    passages: list[Passage] = []
    for gate in dict.fromkeys(one for one in gates.values() if one is not None):
        behind = {f"{one.name}@{one.version}": one.run for one in models if gates[one.name] == gate}
        passages += gated.let_in(gate, behind, output_dir)
    return passages


def _tell(url: str, names: str, passages: Sequence[Passage]) -> None:
    from tunesmith_serving import gated

    if passages:
        gated.note(int(url.rsplit(":", 1)[1]), passages)
    click.echo(f"serving {names} at {url}")
    click.echo(f"playground {url}/   documentation {url}/docs   metrics {url}/metrics")
    sys.stdout.flush()


@command.command("status")
def status() -> None:
    """Say which services run, and whether they are ready.

    Of new versions it says how far they have come in, and of gates what came through which.
    """
    from tunesmith.errors import TunesmithError
    from tunesmith_serving.record import records

    found = records()
    for one in found:
        where = f"on {one.on}" if one.on else f"process {one.pid}"
        click.echo(
            f"{one.url}  {'ready' if one.ready() else 'not ready'}  {', '.join(one.models)}  {where}  {one.log}".rstrip()
        )
        for name, words in one.gates.items():
            click.echo(f"    {name}: {words}")
        if one.rollouts:
            from tunesmith_serving import change

            try:
                lines = change.rollouts(one)
            except TunesmithError as error:
                lines = [f"its rollouts cannot be seen: {error}"]
            for line in lines:
                click.echo(f"    {line}")
    if not found:
        click.echo("no service runs", err=True)


@command.command("stop")
@click.argument("ports", nargs=-1, type=int, metavar="[PORT]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
def stop(ports: tuple[int, ...], everything: bool) -> None:
    """End the service at PORT, or the only one.

    Requests that it has accepted are answered first.
    """
    from tunesmith.errors import UserError
    from tunesmith_serving import service
    from tunesmith_serving.record import records

    running = {one.port: one for one in records()}
    unknown = [port for port in ports if port not in running]
    if unknown or not running:
        there = ", ".join(map(str, running)) or "none"
        raise UserError(f"no service of yours runs {f'at port {unknown[0]}' if unknown else 'here'}; those there are: {there}")
    if not ports and not everything and len(running) > 1:
        raise UserError(f"{len(running)} services run.\n    → Name a port ({', '.join(map(str, running))}), or write --all.")
    for port in ports or running:
        service.stop(running[port])
        click.echo(f"stopped {running[port].url}")


for one in (update, promote, rollback, keys):
    command.add_command(one)
