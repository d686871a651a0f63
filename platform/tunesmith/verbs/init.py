"""Write a commented recipe for a task, ready to be edited."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("init")
@click.argument("task")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("recipe.yaml"), show_default=True, help="The file."
)
@click.option("--data", help="The labelled data: a file, folder, glob or URI.")
@click.option("--model", help="The pre-trained model: a Hub id, a folder or a URI.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(task: str, out: Path, data: str | None, model: str | None, force: bool) -> None:
    """Write a commented recipe for TASK.

    TASK is image-classification, text-classification or token-classification.
    """
    from tunesmith.errors import UserError
    from tunesmith.recipe import task_names
    from tunesmith.recipe.schema import FILE_NAME
    from tunesmith.recipe.template import template
    from tunesmith.verbs.schema import write

    wrong = task_names.problem(task)
    if wrong or task not in task_names.KNOWN:
        what, fix = wrong or (f"there is no template for {task}", "begin with one of the tasks of Tunesmith")
        listed = "\n".join(f"  {name:<22} {facts.summary}" for name, facts in sorted(task_names.KNOWN.items()))
        raise UserError(f"{what}: {fix}\nThe tasks:\n{listed}")
    if out.exists() and not force:
        raise UserError(f"{out} exists: name another file with --out, or replace it with --force")
    folder = out.parent.absolute()
    schema = FILE_NAME if (folder / FILE_NAME).is_file() else None
    write(out, template(task, data=_seen_from(folder, data), model=_seen_from(folder, model), schema=schema))
    click.echo(f"wrote {out}: edit data.train and the rest, then `tunesmith validate {out}`")


def _seen_from(folder: Path, name: str | None) -> str | None:
    """A local path as the recipe's folder sees it; a URI, a Hub id or an absolute path stays."""
    from tunesmith.recipe.paths import clearly_local, is_uri

    if name is None or is_uri(name) or name.startswith(("/", "~")):
        return name
    return os.path.relpath(name, folder) if clearly_local(name) or os.path.exists(name) else name
