"""Print the JSON Schema of a recipe, for editors."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click


@click.command("schema")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file instead.")
def command(out: Path | None) -> None:
    """Print the JSON Schema of a recipe.

    An editor with a YAML language server checks a recipe whose first line is
    `# yaml-language-server: $schema=tunesmith.schema.json`.
    """
    from tunesmith.recipe import schema

    text = schema.render()
    if out is None:
        click.echo(text, nl=False)
    else:
        write(out, text)
        click.echo(f"wrote {out}")


def write(path: Path, text: str) -> None:
    """Write a small local file atomically. Raises :class:`UserError` where that is not possible."""
    from tunesmith.errors import UserError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
