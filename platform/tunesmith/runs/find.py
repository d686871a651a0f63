"""Finding runs: by path, by name, by what they are and how good they are, or the one that waits to be resumed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.errors import RunError, UserError, nearest
from tunesmith.runs.compare import flattened
from tunesmith.runs.run import Run, is_run

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

LATEST = "latest"
_FILTER = re.compile(r"^\s*([\w.@\-/]+?)\s*(<=|>=|!=|==|=|~|<|>)\s*(.*?)\s*$")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


def find_runs(
    output_dir: str = "runs", filters: Sequence[str] = (), *, task: str | None = None, status: str | None = None
) -> list[Run]:
    """The runs of a folder that pass every filter, newest first. Folders that are no runs are passed over.

    A filter compares a metric of the verdict, or a key of the manifest or the recipe: ``accuracy>0.9``,
    ``training.learning_rate<=3e-5``, ``model.model_name_or_path~bert`` (``~`` is contains). Raises :class:`UserError`.
    """
    tests = [_test(text) for text in filters]
    runs = [Run(place) for place in _places(output_dir)]
    fitting = [run for run in runs if (task is None or run.manifest.get("task") == task) and all(test(run) for test in tests)]
    fitting = [run for run in fitting if status is None or run.status == status]
    return sorted(fitting, key=_age, reverse=True)


def open_run(path_or_name: str, output_dir: str = "runs") -> Run:
    """The run at a path or URI, or by name, unique beginning, or ``latest``. Raises :class:`RunError` with the nearest name."""
    if storage.exists(path_or_name) and (is_run(path_or_name) or "/" in path_or_name or storage.scheme(path_or_name)):
        return Run(path_or_name)
    if storage.scheme(path_or_name) or path_or_name.startswith(("/", "./", "../", "~")):
        raise RunError(_missing(path_or_name, storage.parent(path_or_name)))
    if path_or_name == LATEST:
        return _latest(output_dir)
    if "/" not in path_or_name:
        names = [storage.name(place) for place in _places(output_dir)]
        found = [path_or_name] if path_or_name in names else [name for name in names if name.startswith(path_or_name)]
        if len(found) == 1:
            return Run(storage.join(output_dir, found[0]))
        if found:
            some = ", ".join(sorted(found, reverse=True)[:5])
            raise RunError(
                f"{path_or_name!r} is the beginning of {len(found)} runs in {output_dir}: {some}\n    → Write more of the name."
            )
    raise RunError(_missing(path_or_name, output_dir))


def find_resumable(recipe: Recipe) -> Run | None:
    """The newest unfinished run of exactly this recipe in its ``training.output_dir`` that no living process writes.

    None where there is none, or where a later run of the recipe is done: training then begins anew.
    """
    resolved = recipe.resolved()
    fingerprint = resolved.fingerprint()
    for run in find_runs(resolved.training.output_dir):
        if run.manifest.get("name") != resolved.name or run.manifest.get("recipe_fingerprint") != fingerprint:
            continue
        if run.manifest.get("search"):  # `tunesmith tune` goes on with it
            continue
        if run.status == "done":
            return None
        if run.status != "running":
            return run
    return None


def find_search(recipe: Recipe) -> Run | None:
    """The newest unfinished search of exactly this recipe in its ``training.output_dir`` that no living process writes."""
    resolved = recipe.resolved()
    fingerprint = search_fingerprint(resolved)
    for run in find_runs(resolved.training.output_dir):
        told = run.manifest.get("search") or {}
        if run.manifest.get("name") == resolved.name and told.get("fingerprint") == fingerprint:
            return run if run.status in ("interrupted", "failed") else None
    return None


def search_fingerprint(recipe: Recipe) -> str:
    """What stands for a search: its section, and all that its trials rest on."""
    return f"{recipe.fingerprint()}-{recipe.fingerprint('search')}"


def value_of(run: Run, key: str) -> Any:
    """A metric of the verdict, or a key of the manifest or the recipe (``training.`` may be left out); None if not there."""
    metrics = run.metrics
    if key in metrics:
        return metrics[key]
    if key == "status":
        return run.status
    for values in (run.manifest, run.recipe_values, run.recipe_values.get("training") or {}):
        flat = dict(flattened(values))
        if key in flat:
            return flat[key]
    return None


def _places(output_dir: str) -> list[str]:
    """The run folders in a folder; hidden ones (the cache) are none."""
    return [place for place in storage.list_dirs(output_dir) if not storage.name(place).startswith(".") and is_run(place)]


def _age(run: Run) -> tuple[str, str]:
    """Runs made within one second are told apart by name, so that the order is always the same."""
    return str(run.manifest.get("created", "")), run.name


def _latest(output_dir: str) -> Run:
    runs = find_runs(output_dir)
    if not runs:
        raise RunError(f"there are no runs in {output_dir}.\n    → Train one: `tunesmith train recipe.yaml`.")
    return runs[0]


def _missing(name: str, folder: str) -> str:
    """That a run is not there, with the nearest one that is."""
    names = [storage.name(place) for place in _places(folder)]
    near = nearest(storage.name(name), names)
    if near:
        return f"there is no run {name!r}.\n    → Did you mean {storage.join(folder, near)}?"
    return f"there is no run {name!r} ({len(names)} in {folder}).\n    → `tunesmith runs` lists the runs there are."


def _test(text: str) -> Callable[[Run], bool]:
    """The predicate that a filter expression means. Raises :class:`UserError`."""
    found = _FILTER.match(text)
    if not found or not found.group(3):
        raise UserError(
            f"{text!r} is not a filter.\n"
            "    → Write a key, one of < <= > >= = != ~, and a value: 'accuracy>0.9', 'name~digits'."
        )
    key, sign, wanted = found.groups()
    number = _number(wanted)
    if number is None and sign in ("<", "<=", ">", ">=") and key != "created":
        raise UserError(f"{text!r}: {wanted!r} is not a number.\n    → Write a number, or compare with =, != or ~.")

    def passes(run: Run) -> bool:
        value = value_of(run, key)
        if sign == "~":
            return wanted.lower() in str(value).lower()
        if value is None:
            return sign == "!="
        if number is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return bool(_ORDER[sign](value, number))
        if sign in ("<", "<=", ">", ">=") and not isinstance(value, str):
            return False
        plain = str(value).lower() if isinstance(value, bool) else str(value)
        return bool(_ORDER[sign](plain, wanted))

    return passes


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
