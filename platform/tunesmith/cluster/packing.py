"""Chooses what travels with a submitted command: its recipe and the small local files they name, laid out as they are here."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from tunesmith.errors import ClusterError
from tunesmith.recipe import Recipe
from tunesmith.recipe.paths import INPUTS, absolute, is_uri, places_of

LIMIT = 100 * 10**6
"""Bytes that travel with a job; more belongs on storage that the cluster reaches."""

NO_RUN_FOLDER = frozenset({"validate", "doctor", "schema", "init"})
"""Verbs that make no run, and so need no shared place for one."""


@dataclass(frozen=True)
class Package:
    """A command with its files, ready to be sent."""

    arguments: list[str]
    """The command's arguments as the job gets them."""
    folder: Path
    """Holds copies of the files; becomes the job's files."""
    start_in: str
    """The folder inside ``folder`` that stands for the working directory here."""


def pack(arguments: Sequence[str], folder: Path) -> Package:
    """Copies the recipe and the relative paths that a command names into ``folder``.

    Absolute paths and URIs stay: they name what the cluster sees too (a mounted folder, a bucket).

    Raises:
        RecipeError: the recipe is wrong; it is not worth sending.
        ClusterError: the files are too large, the run would land on a disk that nobody sees again, or a run is on this machine.
    """
    here = os.getcwd()
    sent = list(arguments)
    paths = [str(path) for path in _named_files(sent)]
    roots = [here]
    for place, argument in enumerate(sent):
        if argument.endswith((".yaml", ".yml")) and not argument.startswith("-") and not is_uri(argument):
            recipe = Recipe.load(argument, [other for other in sent if _is_override(other)], check_paths=False)
            _check_output(recipe, sent)
            roots.append(recipe.base_dir)
            paths += [os.path.abspath(argument), *_inputs(recipe, sent)]
            sent[place] = os.path.relpath(argument)
    root = os.path.commonpath([*roots, *paths])
    files = sorted({file for path in paths for file in _files(path)})
    _check_size(files)
    for file in files:
        target = folder / os.path.relpath(file, root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    start_in = os.path.relpath(here, root)
    (folder / start_in).mkdir(parents=True, exist_ok=True)
    return Package(sent, folder, start_in)


def _is_override(argument: str) -> bool:
    """Whether an argument is a dotted ``key=value`` of a recipe."""
    return not argument.startswith("-") and "=" in argument and argument.partition("=")[0].replace(".", "_").isidentifier()


def _named_files(arguments: Sequence[str]) -> Iterator[Path]:
    """Relative paths of this machine among the arguments, as such or as the value of an option (``--data=test.csv``), also
    where that has a name (``--data clinic=test.csv``).
    """
    for before, argument in itertools.pairwise(arguments):
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        if (before == "--data" or argument.startswith("--data=")) and not os.path.exists(value):
            value = value.partition("=")[2]
        if not value or os.path.isabs(value) or is_uri(value) or not os.path.exists(value):
            continue
        if os.path.isfile(os.path.join(value, "manifest.json")):
            raise ClusterError(
                f"the run {value} is on this machine, where the cluster does not see it\n"
                f"    → name it by its URI or absolute path on storage that the cluster shares"
            )
        yield Path(value).absolute()


def _inputs(recipe: Recipe, arguments: Sequence[str]) -> Iterator[str]:
    """The recipe's local inputs that were written as relative paths, absolute."""
    overridden = {key: value for key, _, value in (argument.partition("=") for argument in arguments if _is_override(argument))}
    for key in INPUTS:
        written = overridden.get(key)
        for _, source in places_of(attrgetter(key)(recipe)):
            relative = not os.path.isabs(written or source) and not (written or source).startswith("~")
            path = absolute(source, recipe.base_dir)
            if relative and not is_uri(path):
                yield from [path] if os.path.exists(path) else glob.glob(path, recursive=True)


def _files(path: str) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in names)


def _check_size(files: Sequence[str]) -> None:
    sizes = {file: os.path.getsize(file) for file in files}
    total = sum(sizes.values())
    if total > LIMIT:
        largest = max(files, key=lambda file: sizes[file])
        raise ClusterError(
            f"the command names {total / 1e6:,.0f} MB of local files in {len(files)} files, the largest {largest}; "
            f"at most {LIMIT / 1e6:.0f} MB travel with a job\n"
            f"    → put the data where the cluster reads it: data.train=s3://BUCKET/… (gs://, hdfs://), "
            f"or an absolute path that all its nodes mount"
        )


def _check_output(recipe: Recipe, arguments: Sequence[str]) -> None:
    """A relative output folder would be inside the job's own folder, which is deleted with the job."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    output = recipe.training.output_dir
    if verb in NO_RUN_FOLDER or is_uri(output) or os.path.isabs(output):
        return
    raise ClusterError(
        f"training.output_dir is {output}, a folder of this machine that the cluster does not see\n"
        f"    → training.output_dir=s3://BUCKET/runs (gs://, hdfs://), or an absolute path that all its nodes mount"
    )
