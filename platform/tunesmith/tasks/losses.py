"""The criteria: what a model's outputs cost, unit by unit. They act in training only; verdicts use the plain log loss.

A *unit* is an example, or a labelled word. Every criterion takes logits ``[n, classes]`` and targets (int64 ``[n]``, one class
each; or float ``[n, classes]``, any number of them) and gives the losses ``[n]``, neither summed nor averaged. With q the
target (smoothed), p the model's probability and w the classes' weights:

===========================  ================================================  ==============================================
``cross_entropy``            ``Σ q w (-log p)``                                as ``torch.nn.CrossEntropyLoss``
``focal``                    ``Σ q w (1 - p)^gamma (-log p)``                  Lin et al. 2017, arXiv:1708.02002, equation 5
``symmetric_cross_entropy``  ``alpha Σ q w (-log p) - beta w_y A (1 - p_y)``   Wang et al. 2019, arXiv:1908.06112; A for log 0
===========================  ================================================  ==============================================

For any number of classes each of them is a choice of its own, and the losses are averaged over the classes; a weight is that of
the class's positives, as ``pos_weight`` of ``torch.nn.BCEWithLogitsLoss``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.errors import UserError
from tunesmith.recipe.loss_names import LOSSES, is_own
from tunesmith.tasks import own_loss
from tunesmith.tasks.weights import class_weights

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import State


class Criterion(Protocol):
    """What every loss is."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each unit ``[n]``, with a graph."""


@dataclass(frozen=True)
class CrossEntropy:
    """PyTorch's own, and binary cross-entropy for any number of classes.

    >>> CrossEntropy()(torch.zeros(2, 4), torch.tensor([0, 3])).tolist()
    [1.3862943649291992, 1.3862943649291992]
    """

    smoothing: float = 0.0
    """Share of the target's mass spread evenly over all classes."""
    weights: Tensor | None = None
    """float32 ``[classes]``."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Criterion`."""
        logits = logits.float()
        if targets.is_floating_point():
            spread = _smooth_each(targets, self.smoothing)
            return functional.binary_cross_entropy_with_logits(logits, spread, pos_weight=self.weights, reduction="none").mean(
                -1
            )
        return functional.cross_entropy(logits, targets, weight=self.weights, label_smoothing=self.smoothing, reduction="none")


@dataclass(frozen=True)
class Focal:
    """Cross-entropy in which what is already right counts less; gamma 0 is cross-entropy itself."""

    gamma: float = LOSSES["focal"]["gamma"]
    smoothing: float = 0.0
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Criterion`."""
        logits = logits.float()
        if targets.is_floating_point():
            spread = _smooth_each(targets, self.smoothing)
            wanted = self._term(functional.logsigmoid(logits), functional.logsigmoid(-logits))
            unwanted = self._term(functional.logsigmoid(-logits), functional.logsigmoid(logits))
            return (spread * _weighted(wanted, self.weights) + (1 - spread) * unwanted).mean(-1)
        log_p = logits.log_softmax(-1)
        terms = _weighted(self._term(log_p, torch.log1p(-log_p.exp().clamp(max=NEARLY_ONE))), self.weights)
        return (_smooth_one(targets, logits.shape[-1], self.smoothing) * terms).sum(-1)

    def _term(self, log_p: Tensor, log_rest: Tensor) -> Tensor:
        """``(1 - p)^gamma (-log p)``, from logarithms, whose gradient is finite for every gamma."""
        return torch.exp(self.gamma * log_rest) * -log_p


@dataclass(frozen=True)
class SymmetricCrossEntropy:
    """Cross-entropy plus its reverse, which a wrong label cannot drive without bound."""

    alpha: float = LOSSES["symmetric_cross_entropy"]["alpha"]
    beta: float = LOSSES["symmetric_cross_entropy"]["beta"]
    log_zero: float = LOSSES["symmetric_cross_entropy"]["log_zero"]
    smoothing: float = 0.0
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Criterion`."""
        logits = logits.float()
        plain = CrossEntropy(self.smoothing, self.weights)(logits, targets)
        if targets.is_floating_point():
            p = logits.sigmoid()
            reverse = (targets * _weighted(1 - p, self.weights) + (1 - targets) * p).mean(-1)
        else:
            reverse = 1 - logits.softmax(-1).gather(-1, targets[:, None])[:, 0]
            reverse = reverse if self.weights is None else reverse * self.weights[targets]
        return self.alpha * plain - self.beta * self.log_zero * reverse


NEARLY_ONE = 1 - 2**-24
"""The largest float32 below 1: keeps ``log(1 - p)`` finite."""

NAMED: dict[str, Callable[..., Criterion]] = {
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "symmetric_cross_entropy": SymmetricCrossEntropy,
}
"""Those of :data:`tunesmith.recipe.loss_names.LOSSES`."""


def make_criterion(recipe: Recipe, state: State, device: torch.device | str = "cpu") -> Criterion:
    """The criterion that ``training:`` asks for, for a task with this frozen state.

    Raises:
        UserError: the user's own loss cannot be imported or made; a setting that this task's loss cannot follow.
        DataError: a weight for a class that does not exist.
    """
    training = recipe.training
    if "label_counts" not in state:
        _refuse_settings(recipe)
        return CrossEntropy()
    weights = class_weights(training, state)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
    if is_own(training.loss):
        if tensor is not None and state.get("multi_label"):
            raise UserError(
                "training.class_weights cannot be used with a loss of your own where an example has several classes\n"
                "    → Weigh them in your loss: give it the weights in training.loss_args"
            )
        return own_loss.OwnLoss(training.loss, own_loss.make(training, recipe.base_dir, device), tensor)
    return NAMED[training.loss](**training.loss_args, smoothing=training.label_smoothing_factor, weights=tensor)


def check_criterion(recipe: Recipe, state: State) -> None:
    """Make the criterion and try it on three invented units, so that what is wrong with it shows before anything is started.

    Raises what :func:`make_criterion` raises, and :class:`UserError` where the user's own loss fails or gives a wrong shape.
    """
    criterion = make_criterion(recipe, state)
    if "label_counts" not in state:
        return
    classes = len(state["labels"])
    logits = torch.randn(3, classes, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.eye(classes)[[0, 1, 0]] if state.get("multi_label") else torch.tensor([0, 1, 0])
    losses = criterion(logits, targets)
    if not losses.requires_grad:
        raise UserError(
            f"training.loss: {recipe.training.loss} gives losses without a gradient\n"
            "    → Compute them from the logits with PyTorch, without detach() or item()"
        )


def _refuse_settings(recipe: Recipe) -> None:
    """A task with a loss of its own (matching, alignment) has nothing to weigh or replace. Raises :class:`UserError`."""
    training = recipe.training
    changed = {
        "loss": training.loss != "cross_entropy",
        "class_weights": training.class_weights != "none",
        "label_smoothing_factor": training.label_smoothing_factor > 0,
    }
    for key in (key for key, is_changed in changed.items() if is_changed):
        raise UserError(f"training.{key} has no effect on the task {recipe.task}, which has a loss of its own\n    → Remove it")


def _smooth_each(targets: Tensor, smoothing: float) -> Tensor:
    return targets * (1 - smoothing) + smoothing / 2


def _smooth_one(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    return functional.one_hot(targets, classes).float() * (1 - smoothing) + smoothing / classes


def _weighted(terms: Tensor, weights: Tensor | None) -> Tensor:
    return terms if weights is None else terms * weights
