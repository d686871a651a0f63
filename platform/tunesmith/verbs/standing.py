"""What a verb that makes a run begins with: its recipe, and the folder, a new run or an unfinished one, with a true status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import RunError, UserError
from tunesmith.verbs.recording import outcome

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run


def asked_for(recipe: Recipe | str, overrides: Sequence[str]) -> Recipe:
    """The resolved recipe that a verb was given, itself or by its path."""
    from tunesmith.recipe import Recipe as RecipeClass

    given = recipe if isinstance(recipe, RecipeClass) else RecipeClass.load(recipe, overrides)
    return given.resolved()


def record_for(
    recipe: Recipe,
    folder: str | None,
    force: bool,
    resume: bool,
    command: Sequence[str] | None = None,
    *,
    search_by: str | None = None,
) -> tuple[Run, bool]:
    """The run to write to: the one named, an unfinished one of the same recipe, or a new one; and whether it is new.

    Args:
        command: what the record calls the command; None is this process's.
        search_by: the metric of a search, which goes on with a search of the same recipe and nothing else; None is no search.

    Raises :class:`RunError` where the run named is another recipe's, or finished.
    """
    from tunesmith import storage
    from tunesmith.runs import Run, find_resumable, find_search

    command = command or [Path(sys.argv[0]).name, *sys.argv[1:]]
    there = folder is not None and storage.exists(storage.join(folder, "manifest.json"))
    if not there and folder is None and resume:
        unfinished = find_resumable(recipe) if search_by is None else find_search(recipe)
        if unfinished is not None:
            return unfinished, False
    if there and not force:
        return _same(recipe, Run.open(str(folder)), search_by is not None), False
    if there:
        run = Run.open(str(folder))
        run.start_over(recipe, command)
    else:
        run = Run.create(recipe, command, folder)
    if search_by is not None:
        _mark(recipe, run, search_by)
    return run, not there


def _same(recipe: Recipe, run: Run, search: bool) -> Run:
    """The run, which is an unfinished one of this recipe. Raises :class:`RunError`."""
    from tunesmith.runs.find import search_fingerprint

    if not search:
        run.check_recipe(recipe)
    elif (run.manifest.get("search") or {}).get("fingerprint") != search_fingerprint(recipe):
        raise RunError(
            f"{run.path} is a run of another recipe or search\n    → Name another folder, or add --force to replace it"
        )
    if run.status == "done":
        what, again = ("search", "search again") if search else ("run of this recipe", "train it again")
        raise RunError(f"{run.path} is a finished {what}\n    → Name another folder, or add --force to {again}")
    return run


def _mark(recipe: Recipe, run: Run, metric: str) -> None:
    """A search's run is known by its search, whose recipe it keeps: its own recipe becomes the winner's."""
    from tunesmith import storage
    from tunesmith.runs.find import search_fingerprint

    run.update(search={"fingerprint": search_fingerprint(recipe), "metric": metric})
    storage.write_text(run.file("search.yaml"), recipe.to_yaml())


@contextmanager
def standing(run: Run, new: bool, worth: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Locks the run and keeps its status true, however the block ends; an interruption is told how to go on.

    A new run that a user's mistake ended before its first update leaves nothing behind, unless it is ``worth`` keeping.
    """
    from tunesmith import storage
    from tunesmith.runs.run import TEACHER

    kept = True
    with run.lock():
        run.set_status("running")
        try:
            yield
        except BaseException as error:
            begun = bool(run.history) or storage.exists(run.file(TEACHER)) or worth()
            kept = not (new and isinstance(error, UserError)) or begun
            if kept:
                run.set_status(outcome(type(error)))
            if outcome(type(error)) == "interrupted":
                error.__notes__ = [f"The same command goes on with {run.path}"]  # instead of what its teacher says of itself
            raise
        else:
            run.set_status("done")
        finally:
            if not kept:
                run.remove()


def is_trained(run: Run) -> bool:
    """Whether the run has its model already, so that only the verdict is missing."""
    from tunesmith import storage

    return storage.exists(storage.join(run.file("model"), "tunesmith.json"))


def log_file(run: Run) -> str | None:
    """Where Ray's and the workers' chatter goes; a remote run keeps it in Ray's own logs only."""
    from tunesmith import storage

    return str(storage.local_path(run.file("train.log"))) if storage.is_local(run.path) else None
