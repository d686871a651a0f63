"""Write a commented recipe for a task, ready to be edited."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunesmith.recipe.starting import Counted


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

    TASK is image-classification, text-classification or token-classification. The learning rate goes by the model, the number
    of epochs by the rows of the data; the reasons are in the recipe.
    """
    from tunesmith.errors import UserError
    from tunesmith.recipe import task_names
    from tunesmith.recipe.starting import start
    from tunesmith.recipe.template import BATCH, template
    from tunesmith.verbs.schema import write

    wrong = task_names.problem(task)
    if wrong or task not in task_names.KNOWN:
        what, fix = wrong or (f"there is no template for {task}", "begin with one of the tasks of Tunesmith")
        listed = "\n".join(f"  {name:<22} {facts.summary}" for name, facts in sorted(task_names.KNOWN.items()))
        raise UserError(f"{what}: {fix}\nThe tasks:\n{listed}")
    if out.exists() and not force:
        raise UserError(f"{out} exists: name another file with --out, or replace it with --force")
    folder = out.parent.absolute()
    schema = schema_beside(folder)
    chosen = model or task_names.KNOWN[task].model
    counted = _counted(data)
    begin = start(chosen, config_of(chosen), counted, BATCH)
    seen: dict[str, Any] = {"data": seen_from(folder, data), "model": seen_from(folder, model)}
    write(out, template(task, **seen, schema=schema, begin=begin))
    of = f" for {counted}" if counted else ""
    click.echo(
        f"wrote {out}: learning rate {begin.learning_rate:g}, {begin.num_train_epochs} epochs{of}; the reasons are in it"
    )
    click.echo(f"edit {'the rest' if data else 'data.train and the rest'}, then `tunesmith validate {out}`")


def schema_beside(folder: Path) -> str | None:
    """The name of the JSON Schema in a recipe's folder, where there is one."""
    from tunesmith.recipe.schema import FILE_NAME

    return FILE_NAME if (folder / FILE_NAME).is_file() else None


def seen_from(folder: Path, name: str | None) -> str | None:
    """A local path as the recipe's folder sees it; a URI, a Hub id or an absolute path stays."""
    from tunesmith.recipe.paths import clearly_local, is_uri

    if name is None or is_uri(name) or name.startswith(("/", "~")):
        return name
    return os.path.relpath(name, folder) if clearly_local(name) or os.path.exists(name) else name


def config_of(model: str) -> dict[str, Any] | None:
    """What the model's ``config.json`` says, from its folder or the Hub's cache on this machine; None where it is not here."""
    from tunesmith.recipe.paths import is_uri

    place: Any = Path(model).expanduser() / "config.json"
    try:
        if not is_uri(model) and not place.is_file():
            from huggingface_hub import try_to_load_from_cache

            place = try_to_load_from_cache(model, "config.json")
        said = json.loads(Path(place).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):  # ValueError: no Hub id, or no JSON; TypeError: not in the cache
        return None
    return said if isinstance(said, dict) else None


def _counted(data: str | None) -> Counted | None:
    """The rows of data on this machine; None where there is none yet, or none that can be read: ``validate`` tells why."""
    from tunesmith.recipe.paths import is_uri
    from tunesmith.recipe.starting import ENOUGH, Counted

    if data is None or is_uri(data):
        return None
    from tunesmith.data.counting import count_rows
    from tunesmith.data.sources import resolve
    from tunesmith.errors import TunesmithError
    from tunesmith.recipe.data import SplitSection

    try:
        found = resolve(data, "auto", str(Path.cwd()), "train")
        rows = count_rows(found["train"], ENOUGH)
    except (TunesmithError, OSError, ValueError):
        return None
    cut = SplitSection()
    shares = {"validation": cut.validation, "test": cut.test}
    return Counted(rows, 1 - sum(share for split, share in shares.items() if split not in found)) if rows else None
