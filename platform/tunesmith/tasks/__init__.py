"""The tasks, one file each, behind the Protocol of :mod:`tunesmith.tasks.base`. Importing this imports none of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tunesmith.errors import UserError
from tunesmith.recipe.task_names import TASKS, problem

if TYPE_CHECKING:
    from tunesmith.tasks.base import Task

__all__ = ["TASKS", "load_task"]


def load_task(name: str) -> Task:
    """The task of that name, or of a ``module:Class``. Raises :class:`UserError` with the nearest name where there is none.

    >>> load_task("text-clasification")
    Traceback (most recent call last):
    tunesmith.errors.UserError: there is no task text-clasification: did you mean text-classification?
    """
    wrong = problem(name)
    if wrong:
        raise UserError(": ".join(wrong))
    module, _, attribute = TASKS.get(name, name).partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise UserError(f"the task {name} cannot be imported: {error}; install what it needs") from error
    except AttributeError:
        raise UserError(f"module {module} has no {attribute}, which task {name} should be") from None
    task: Task = made() if isinstance(made, type) else made
    return task
