"""Serve fine-tuned models over HTTP, behind API keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click


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
@click.option(
    "--keys",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file of API keys, if not the user's own.",
)
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
def start(
    runs: tuple[str, ...],
    port: int | None,
    detach: bool,
    on: str | None,
    write: Path | None,
    keys: Path | None,
    output_dir: str,
) -> None:
    """Serve each RUN: a run's folder, URI, name, or `latest`.

    NAME=RUN and NAME@VERSION=RUN name the model; otherwise its name is the run's, and its version 1. The first version given of
    a model is the one that answers where none is asked for. serving.KEY=VALUE changes a setting of the runs' recipes.
    """
    from tunesmith.errors import UserError
    from tunesmith_serving import service
    from tunesmith_serving.keys import KeyFile, default_place
    from tunesmith_serving.plan import planned, serve_yaml

    models = planned(runs, output_dir)
    file = KeyFile(keys or default_place())
    if write is not None:
        from tunesmith import storage

        storage.write_text(write, serve_yaml(models, str(file.path.absolute()), port or 8000))
        click.echo(f"wrote {write}: deploy it with `serve deploy {write}`")
        return
    if on is not None and on.startswith(("http://", "https://")):
        raise UserError(
            f"--on {on} is the address of a dashboard, and a service is not a job.\n"
            f"    → Join from one of the cluster's nodes (--on HOST:6379), or --write serve.yaml and `serve deploy -a {on}`."
        )
    there = next((one for one in service.records() if on is not None and one.on == on), None)
    port = there.port if there is not None and port in (None, there.port) else service.choose_port(port)
    _make_first_key(file)
    names = ", ".join(
        dict.fromkeys(f"{one.name} (version {one.version}, {one.task}, {one.settings.backend})" for one in models)
    )
    if on is not None:
        _tell(service.deploy(models, keys=str(file.path.absolute()), port=port, on=on).url, names)
    elif detach:
        passed = [*runs, "--output-dir", output_dir, *(["--keys", str(keys)] if keys else [])]
        record = service.detach(passed, port)
        _tell(record.url, names)
        click.echo(f"it goes on as process {record.pid}: `tunesmith serve status`, `tunesmith serve stop {record.port}`")
    else:
        click.echo(f"starting: {names}", err=True)
        service.run(
            models,
            keys=str(file.path.absolute()),
            port=port,
            log_folder=service.state_folder(),
            told=lambda url: _tell(url, names),
        )
        click.echo("stopped", err=True)


def _make_first_key(file: object) -> None:
    """A service without a key would answer nobody: make one, and show it once."""
    from tunesmith_serving.keys import KeyFile

    assert isinstance(file, KeyFile)
    if not file.all():
        click.echo(f"API key \u201cfirst\u201d, shown this once: {file.add('first')}")


def _tell(url: str, names: str) -> None:
    click.echo(f"serving {names} at {url}")
    click.echo(f"playground {url}/   documentation {url}/docs   metrics {url}/metrics")
    sys.stdout.flush()


@command.command("status")
def status() -> None:
    """Say which services run, and whether they are ready."""
    from tunesmith_serving.service import records

    found = records()
    for one in found:
        where = f"on {one.on}" if one.on else f"process {one.pid}"
        click.echo(
            f"{one.url}  {'ready' if one.ready() else 'not ready'}  {', '.join(one.models)}  {where}  {one.log}".rstrip()
        )
    if not found:
        click.echo("no service runs", err=True)


@command.command("stop")
@click.argument("ports", nargs=-1, type=int, metavar="[PORT]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
def stop(ports: tuple[int, ...], everything: bool) -> None:
    """End the service at PORT, or the only one; requests that it has accepted are answered first."""
    from tunesmith.errors import UserError
    from tunesmith_serving import service

    running = {one.port: one for one in service.records()}
    unknown = [port for port in ports if port not in running]
    if unknown or not running:
        there = ", ".join(map(str, running)) or "none"
        raise UserError(f"no service of yours runs {f'at port {unknown[0]}' if unknown else 'here'}; those there are: {there}")
    if not ports and not everything and len(running) > 1:
        raise UserError(f"{len(running)} services run.\n    → Name a port ({', '.join(map(str, running))}), or write --all.")
    for port in ports or running:
        service.stop(running[port])
        click.echo(f"stopped {running[port].url}")


@command.group("keys")
def keys_group() -> None:
    """Make, list and revoke API keys. A running service notices within a second."""


_FILE = click.option(
    "--keys", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file, if not the user's own."
)


@keys_group.command("add")
@click.argument("name")
@click.option("--models", metavar="A,B", help="The models that it may ask; all if not said.")
@_FILE
def add(name: str, models: str | None, keys: Path | None) -> None:
    """Make a key called NAME and print it, this once."""
    from tunesmith.errors import UserError
    from tunesmith_serving.keys import KeyFile, default_place

    allowed = [part.strip() for part in models.split(",") if part.strip()] if models is not None else None
    if allowed == []:
        raise UserError("--models names none.\n    → Name some, or leave it away.")
    click.echo(KeyFile(keys or default_place()).add(name, allowed))


@keys_group.command("list")
@_FILE
def list_keys(keys: Path | None) -> None:
    """List the keys by name; the keys themselves are not kept."""
    from tunesmith_serving.keys import KeyFile, default_place

    for key in KeyFile(keys or default_place()).all():
        click.echo(f"{key.name}  {'all models' if key.models is None else ', '.join(key.models)}  {key.created}")


@keys_group.command("revoke")
@click.argument("name")
@_FILE
def revoke(name: str, keys: Path | None) -> None:
    """Forget the key called NAME: it opens nothing any more."""
    from tunesmith_serving.keys import KeyFile, default_place

    KeyFile(keys or default_place()).revoke(name)
    click.echo(f"revoked {name}")
