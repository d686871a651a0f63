"""A loss of the user's own, by its path: ``training.loss: mypackage.losses.MyLoss``.

It is a function ``(logits, targets) -> losses`` or a class whose instances are called that way; ``training.loss_args`` are
given to the function at each call, to the class once. The module is looked for among what is installed (and ``PYTHONPATH``),
then in the recipe's folder. Every worker imports it itself: on several machines it must be installed on all, or the recipe's
folder be on a file system that all reach. The working directory is not looked in, as workers have another.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.errors import UserError, nearest

if TYPE_CHECKING:
    from tunesmith.recipe.training import TrainingSection

SHAPE = "one loss for each unit, [n], from logits [n, classes] and targets"


@dataclass(frozen=True)
class OwnLoss:
    """The user's loss, held to its shape, with the classes' weights."""

    path: str
    function: Callable[[Tensor, Tensor], Any]
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The losses ``[n]``. Raises :class:`UserError` where it cannot be called so, or gives something else."""
        try:
            losses = self.function(logits.float(), targets)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise
            raise UserError(
                f"training.loss: {self.path} failed on logits {list(logits.shape)} and targets {list(targets.shape)} "
                f"{targets.dtype}: {type(error).__name__}: {error}\n    → It must give {SHAPE}"
            ) from error
        if not isinstance(losses, Tensor) or losses.shape != logits.shape[:1]:
            found = f"a tensor of shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            hint = (
                ', so leave out .mean() or .sum() (reduction="none")' if isinstance(losses, Tensor) and not losses.ndim else ""
            )
            raise UserError(
                f"training.loss: {self.path} gives {found} for logits {list(logits.shape)}\n    → It must give {SHAPE}{hint}"
            )
        return losses if self.weights is None else losses * self.weights[targets]


def make(training: TrainingSection, base_dir: str, device: torch.device | str) -> Callable[[Tensor, Tensor], Any]:
    """The function, or an instance of the class, with its arguments.

    Raises :class:`UserError` where it cannot be imported, is not there, or does not take its arguments.
    """
    found = _find(training.loss, base_dir)
    arguments = training.loss_args
    try:
        if isinstance(found, type):
            made = found(**arguments)
            made = made.to(device) if isinstance(made, torch.nn.Module) else made
        else:
            made = partial(found, **arguments) if arguments else found
        if callable(made):
            inspect.signature(made).bind(None, None)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"training.loss: {training.loss} cannot be called as a loss: {error}\n"
            f"    → It takes logits and targets; training.loss_args gives {arguments or 'nothing else'}"
        ) from error
    if not callable(made):
        raise UserError(f"training.loss: {training.loss} is {type(made).__name__}, not a function or class\n    → Name a loss")
    return made  # type: ignore[no-any-return]  # the user's, checked at each call


def _find(path: str, base_dir: str) -> Any:
    """What stands at the dotted path."""
    module, _, name = path.rpartition(".")
    if base_dir not in sys.path:
        sys.path.append(base_dir)  # last: a file beside the recipe must not hide an installed package
    try:
        holder = importlib.import_module(module)
    except Exception as error:  # the user's module may fail in any way when it is run
        raise UserError(
            f"training.loss: the module {module} cannot be imported: {type(error).__name__}: {error}\n"
            f"    → Install it on every machine, or put it beside the recipe ({base_dir})"
        ) from error
    if not hasattr(holder, name):
        near = nearest(name, [one for one in vars(holder) if not one.startswith("_")])
        raise UserError(
            f"training.loss: {module} ({getattr(holder, '__file__', 'built in')}) has no {name}\n    → "
            + (f"Did you mean {module}.{near}?" if near else "Name a function or class of it")
        )
    return getattr(holder, name)
