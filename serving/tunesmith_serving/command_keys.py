"""``serve keys``: who may ask a service."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("keys")
def keys() -> None:
    """Make, list and revoke API keys. A running service notices within a second."""


_FILE = click.option(
    "--keys", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file, if not the user's own."
)


@keys.command("add")
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


@keys.command("list")
@_FILE
def list_keys(keys: Path | None) -> None:
    """List the keys by name; the keys themselves are not kept."""
    from tunesmith_serving.keys import KeyFile, default_place

    for key in KeyFile(keys or default_place()).all():
        click.echo(f"{key.name}  {'all models' if key.models is None else ', '.join(key.models)}  {key.created}")


@keys.command("revoke")
@click.argument("name")
@_FILE
def revoke(name: str, keys: Path | None) -> None:
    """Forget the key called NAME: it opens nothing any more."""
    from tunesmith_serving.keys import KeyFile, default_place

    KeyFile(keys or default_place()).revoke(name)
    click.echo(f"revoked {name}")
