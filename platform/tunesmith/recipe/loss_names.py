"""The losses, class weights and ways of sampling that a recipe may name, and what is wrong with a choice of them.

Pure data: the losses themselves are in ``tunesmith/tasks/losses.py``. Kept apart so that a recipe is checked without PyTorch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tunesmith.errors import nearest

if TYPE_CHECKING:
    from tunesmith.recipe.recipe import Recipe
    from tunesmith.recipe.training import TrainingSection

LOSSES: dict[str, dict[str, float]] = {
    "cross_entropy": {},
    "focal": {"gamma": 2.0},
    "symmetric_cross_entropy": {"alpha": 0.1, "beta": 1.0, "log_zero": math.log(1e-4)},
}
"""Name → arguments with their defaults.

``focal``: gamma 2 is what Lin et al. (2017, arXiv:1708.02002, table 1b) found best. ``symmetric_cross_entropy``: alpha 0.1 and
beta 1 are those of Wang et al. (2019, arXiv:1908.06112) for CIFAR-10; ``log_zero``, their A, stands for log 0, and their code
clips labels at 1e-4.
"""

BETA = 0.999
"""The beta of the effective number where the recipe does not say; Cui et al. (2019, arXiv:1901.05555) try 0.9 to 0.9999."""

Problem = tuple[tuple[str, ...], str, str, tuple[str, ...]]
"""The keys on the way to the value, what is wrong, the fix, and the other dotted keys that it is drawn from."""

LOSS, ARGUMENTS = ("training", "loss"), ("training", "loss_args")
WEIGHTS, WEIGHTS_ARGS = ("training", "class_weights"), ("training", "class_weights_args")


def is_own(loss: str) -> bool:
    """Whether a loss is the user's, by its path.

    >>> is_own("focal"), is_own("mypackage.losses.MyLoss")
    (False, True)
    """
    return loss not in LOSSES and "." in loss


def problems(recipe: Recipe) -> Iterator[Problem]:
    """Everything about the loss, its weights and the sampling that the recipe alone shows to be wrong."""
    training = recipe.training
    if training.loss not in LOSSES and not is_own(training.loss):
        near = nearest(training.loss.lower().replace("-", "_"), LOSSES)
        fix = f"did you mean {near}?" if near else f"write one of {', '.join(LOSSES)}, or package.module.Name of your own"
        yield LOSS, f"there is no loss {training.loss}", fix, ()
    if is_own(training.loss) and training.label_smoothing_factor:
        fix = "remove it, or smooth in your loss (training.loss_args)"
        yield ("training", "label_smoothing_factor"), "a loss of your own is not smoothed", fix, ("training.loss",)
    yield from _arguments(training)
    yield from _weights(recipe)
    yield from _weights_arguments(training)
    if training.sampling == "balanced" and training.class_weights in ("inverse", "effective"):
        what = f"balanced sampling and {training.class_weights} weights mend the same thing, and together overdo it"
        fix = "keep one of training.sampling and training.class_weights"
        yield ("training", "sampling"), what, fix, (".".join(WEIGHTS),)


def missing(recipe: Recipe) -> Iterator[Problem]:
    """A loss of the user's own whose module is neither installed nor beside the recipe. Nothing is imported."""
    loss = recipe.training.loss
    if not is_own(loss):
        return
    top, *rest = loss.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        yield LOSS, f"{loss} is no path to a loss", "write it as package.module.Name", ()
    elif not _findable(top, recipe.base_dir):
        fix = f"install the package that brings it, or put {top}.py beside the recipe"
        yield LOSS, f"there is no module {top}, installed or in {recipe.base_dir}", fix, ()


def _findable(module: str, folder: str) -> bool:
    """Whether a top-level module is loaded, installed, or in ``folder``."""
    return module in sys.modules or find_spec(module) is not None or PathFinder.find_spec(module, [folder]) is not None


def _arguments(training: TrainingSection) -> Iterator[Problem]:
    """A named loss has these arguments, and they are numbers that it can take."""
    known = LOSSES.get(training.loss)
    if known is None:
        return
    for name, value in training.loss_args.items():
        at, drawn = (*ARGUMENTS, name), (".".join(LOSS),)
        if name not in known:
            near = nearest(name, known)
            fix = f"did you mean {near}?" if near else f"it has {', '.join(known)}" if known else "remove it: it has none"
            yield at, f"{training.loss} has no argument {name}", fix, drawn
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield at, f"found {value!r}, which is no number", f"write a number; the default is {known[name]:g}", drawn
        elif name == "log_zero" and value >= 0:
            yield at, f"found {value:g}; it stands for log 0", f"write a number below 0, such as {known[name]:.3g}", drawn
        elif name != "log_zero" and value < 0:
            yield at, f"found {value:g}, which turns the loss round", f"write 0 or more; the default is {known[name]:g}", drawn


def _weights(recipe: Recipe) -> Iterator[Problem]:
    """Weights are numbers of at least 0, of classes that exist where ``data.labels`` tells."""
    weights, labels = recipe.training.class_weights, recipe.data.labels
    if isinstance(weights, str):
        return
    for name, value in weights.items():
        wrong = unknown_class(name, labels) if labels else None
        if wrong:
            yield (*WEIGHTS, name), *wrong, ("data.labels",)
        if value < 0:
            yield (*WEIGHTS, name), f"found {value:g}: a class cannot weigh less than nothing", "write 0 or more", ()
    if labels and not any(weights.get(name, 1.0) for name in labels):
        fix = "give the classes that matter a weight"
        yield WEIGHTS, "every class weighs 0, so nothing would be learned", fix, ("data.labels",)


def _weights_arguments(training: TrainingSection) -> Iterator[Problem]:
    """Only ``effective`` has an argument: a beta of at least 0 and below 1."""
    drawn = (".".join(WEIGHTS),)
    for name, value in training.class_weights_args.items():
        at = (*WEIGHTS_ARGS, name)
        if training.class_weights != "effective":
            shown = training.class_weights if isinstance(training.class_weights, str) else "given class by class"
            yield at, f"it has no effect while class_weights is {shown}", "write class_weights: effective, or remove it", drawn
        elif name != "beta":
            yield at, f"effective has no argument {name}", "it has beta", drawn
        elif not 0 <= value < 1:
            yield at, f"found {value:g}; it must be at least 0 and below 1", f"write {BETA:g} or 0.9999", drawn


def unknown_class(name: str, labels: Sequence[str]) -> tuple[str, str] | None:
    """Why ``name`` is no class, and what to write instead; None where it is one.

    >>> unknown_class("spma", ["ham", "spam"])
    ('there is no class spma', 'did you mean spam?')
    """
    if name in labels:
        return None
    near = nearest(name, labels)
    shown = ", ".join(labels[:12]) + (" …" if len(labels) > 12 else "")
    return f"there is no class {name}", f"did you mean {near}?" if near else f"the classes are {shown}"
