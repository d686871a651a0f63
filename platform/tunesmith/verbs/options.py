"""Options that several verbs share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import click

from tunesmith.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

ON_HELP = "A Ray cluster: HOST:PORT joins it, http://HEAD:8265 submits this command as a job.  [env: RAY_ADDRESS]"


def on_option(
    function: Callable[P, R], *, from_here: Callable[[Mapping[str, Any]], bool] = lambda given: False
) -> Callable[P, R]:
    """Adds ``--on ADDRESS`` to a verb, which gets it as ``on``; a command that is to run as a job is submitted instead.

    Stands below the verb's other options. ``on`` is None, ``auto`` or ``HOST:PORT``, as
    :func:`tunesmith.cluster.connect.connect` takes it. What ``from_here`` is true of is never submitted, and the variable does
    not count: ``on`` is what was typed, for the verb to refuse.
    """

    @click.option("--on", "on", metavar="ADDRESS", help=ON_HELP)
    @functools.wraps(function)
    def verb(*args: P.args, **kwargs: P.kwargs) -> R:
        if from_here(kwargs):
            return function(*args, **kwargs)
        on = kwargs.get("on") or os.environ.get("RAY_ADDRESS") or None
        dispatch(str(on) if on else None)
        return function(*args, **(kwargs | {"on": on}))  # type: ignore[arg-type]

    return verb


def refuse_elsewhere(on: str | None, workers: int | None = None) -> None:
    """Raises :class:`UserError` where a served model is to be asked from a cluster: its key would stand in a job's command."""
    if on or workers:
        raise UserError("a served model is asked from here\n    → Leave --on and --workers out.")


def run_options(function: Callable[P, R]) -> Callable[P, R]:
    """Adds ``--run DIR``, ``--force`` and ``--new`` to a verb that makes a run, which gets ``folder``, ``force`` and ``new``.

    Raises :class:`UserError` for ``--force`` without a run that could be started over.
    """

    @click.option("--run", "folder", metavar="DIR", help="The run's folder: a new one, or one to go on with.")
    @click.option("--force", is_flag=True, help="Start --run DIR over, also where it belongs to another recipe.")
    @click.option("--new", is_flag=True, help="Begin anew even where a run of this recipe is unfinished.")
    @functools.wraps(function)
    def verb(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("force") and kwargs.get("folder") is None:
            raise UserError("--force goes with --run DIR, the run to start over")
        return function(*args, **kwargs)

    return verb


def dispatch(on: str | None, arguments: Sequence[str] | None = None) -> None:
    """Submits the command as a job where ``on`` is the address of a dashboard, and leaves with its exit code; else returns.

    ``arguments`` are the command's, from the verb on; None is this process's.

    Raises:
        ClusterError: the cluster cannot be reached, or the command cannot run there.
        click.exceptions.Exit: with the job's exit code, once it has ended.
    """
    if on is None or not on.startswith(("http://", "https://")):
        return
    from tunesmith.cluster import jobs

    raise click.exceptions.Exit(jobs.run(on, without_on(sys.argv[1:] if arguments is None else arguments)))


def without_on(arguments: Sequence[str]) -> list[str]:
    """Arguments less ``--on ADDRESS``, which the job must not see.

    >>> without_on(["train", "--on", "http://head:8265", "recipe.yaml", "--on=x"])
    ['train', 'recipe.yaml']
    """
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--on":
            skip = True
        elif not argument.startswith("--on="):
            kept.append(argument)
    return kept
