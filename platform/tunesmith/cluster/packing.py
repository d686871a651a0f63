"""Chooses what travels with a submitted command: its recipe and the small local files they name, laid out as they are here."""

from __future__ import annotations

import glob
import itertools
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from tunesmith.errors import ClusterError
from tunesmith.recipe import Recipe
from tunesmith.recipe.augment import MaskedLM
from tunesmith.recipe.paths import INPUTS, absolute, is_uri, places_of

LIMIT = 100 * 10**6
"""Bytes that travel with a job; more belongs on storage that the cluster reaches."""

NO_RUN_FOLDER = frozenset({"validate", "doctor", "schema", "init"})
"""Verbs that make no run, and so need no shared place for one."""

PLACES = ("--run", "--into", "--out", "--output-dir", "--storage")
"""Options that name where runs are or go. A relative one would be inside the job's own folder, which is deleted with it."""

NAMED_RUN = frozenset({"evaluate", "show", "reproduce", "compare", "gate"})
"""Verbs whose arguments are runs, which may be names in ``--output-dir``."""

RUN_OPTIONS = ("--like", "--baseline")
"""Options of those verbs that name a run too."""

FLAGS = frozenset({"--json", "--evaluate", "--example", "--overwrite"})
"""Options of those verbs that take no value."""

BESIDE = frozenset({"evaluate", "compare", "gate"})
"""Verbs that write their files beside those of the first run, where ``--out`` does not say: of a URL, in a new folder."""

OTHER_YAML = frozenset({"--gate", "--target"})
"""Options whose file is YAML and no recipe."""


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
    _check_places(sent)
    roots = [here]
    for place, argument in enumerate(sent):
        if _is_recipe(sent, place):
            recipe = Recipe.load(argument, [other for other in sent if _is_override(other)], check_paths=False)
            _check_output(recipe, sent)
            roots.append(recipe.base_dir)
            paths += [os.path.abspath(argument), *_inputs(recipe, sent)]
            for changes in _variants(sent):
                paths += _inputs(Recipe.load(argument, changes, check_paths=False), changes)
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


def _is_recipe(arguments: Sequence[str], place: int) -> bool:
    """Whether an argument is the file of a recipe, not of a gate or a target."""
    argument, before = arguments[place], arguments[place - 1] if place else ""
    is_yaml = argument.endswith((".yaml", ".yml")) and not argument.startswith("-") and not is_uri(argument)
    return is_yaml and before not in OTHER_YAML


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


def _variants(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each ``--variant 'NAME: KEY=VALUE …'``."""
    for place, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option == "--variant" or argument == "--variant":
            text = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            try:
                yield [one for one in shlex.split(text.partition(":")[2]) if _is_override(one)]
            except ValueError as error:
                raise ClusterError(f"--variant {text!r}: {error}\n    → close the quotation that it begins") from error


def _inputs(recipe: Recipe, arguments: Sequence[str]) -> Iterator[str]:
    """The recipe's local inputs that were written as relative paths, absolute."""
    overridden = {key: value for key, _, value in (argument.partition("=") for argument in arguments if _is_override(argument))}
    named = [(overridden.get(key), source) for key in INPUTS for _, source in places_of(attrgetter(key)(recipe))]
    named += [(None, one.model_name_or_path) for one in recipe.data.augment if isinstance(one, MaskedLM)]
    for written, source in named:
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


def _check_places(arguments: Sequence[str]) -> None:
    """Refuses a relative folder of runs: what is written there would be lost, and what is there is not on the cluster."""
    verb = arguments[0] if arguments else ""
    values = {option: _value(arguments, option) for option in PLACES}
    looked_in = verb == "runs" or (verb in NAMED_RUN and any(map(_is_name, _runs(arguments))))
    if looked_in and values["--output-dir"] is None:
        values["--output-dir"] = "runs"
    for option, value in values.items():
        if value is not None and not _is_shared(value):
            raise ClusterError(
                f"{option} is {value}, a folder of this machine that the cluster does not see\n"
                f"    → {option} s3://BUCKET/runs (gs://, hdfs://), or an absolute path that all its nodes mount"
                + ("; or name the run itself so" if option == "--output-dir" and verb in NAMED_RUN else "")
            )
    told_only = "--example" in arguments or _value(arguments, "--pairs") is not None
    if verb in BESIDE and values["--out"] is None and not told_only and not _stands(verb, _runs(arguments)):
        raise ClusterError(
            f"without --out the files of {verb} would be in the job's own folder, which is deleted with it\n"
            f"    → --out s3://BUCKET/… (gs://, hdfs://), or an absolute path that all its nodes mount"
        )


def _runs(arguments: Sequence[str]) -> list[str]:
    """What names a run, an evaluation or a served model: a verb's arguments, and the values of some options."""
    named = [one for one in _positionals(arguments) if not _is_override(one)]
    if _value(arguments, "--pairs") is not None:
        named = []  # versions in that file
    options = [_value(arguments, option) for option in RUN_OPTIONS]
    return named + [one for one in options if one not in (None, "base")]


def _is_name(run: str) -> bool:
    """Whether a run is looked for by its name."""
    return not _is_shared(run) and not os.path.exists(run)


def _stands(verb: str, runs: Sequence[str]) -> bool:
    """Whether the files of a verb go where they outlast the job without ``--out``: beside those of the first run.

    A name is looked for in ``--output-dir``, which is shared by then; ``evaluate`` takes ``--out`` for a served model only.
    """
    first = runs[0] if runs else ""
    if _is_served(first) or verb == "evaluate":
        return not _is_served(first)
    return bool(first) and (_is_name(first) or _is_shared(first))


def _is_served(run: str) -> bool:
    """Whether what is named is a served model, which has no folder."""
    return run.startswith(("http://", "https://"))


def _value(arguments: Sequence[str], option: str) -> str | None:
    """What an option is given, the last time it is: ``--out DIR`` or ``--out=DIR``."""
    found = None
    for place, argument in enumerate(arguments):
        if argument == option and place + 1 < len(arguments):
            found = arguments[place + 1]
        elif argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
    return found


def _positionals(arguments: Sequence[str]) -> list[str]:
    """The arguments after the verb that are no options and no options' values."""
    found, skip = [], False
    for argument in arguments[1:]:
        if skip:
            skip = False
        elif argument.startswith("-"):
            skip = "=" not in argument and argument not in FLAGS
        else:
            found.append(argument)
    return found


def _is_shared(place: str) -> bool:
    """Whether a place may be the same on the cluster as here."""
    return is_uri(place) or os.path.isabs(place)


def _check_output(recipe: Recipe, arguments: Sequence[str]) -> None:
    """A relative output folder would be inside the job's own folder, which is deleted with the job."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    output = recipe.training.output_dir
    if verb in NO_RUN_FOLDER or _is_shared(output):
        return
    raise ClusterError(
        f"training.output_dir is {output}, a folder of this machine that the cluster does not see\n"
        f"    → training.output_dir=s3://BUCKET/runs (gs://, hdfs://), or an absolute path that all its nodes mount"
    )
