"""The plain log loss of what is trained on, whatever the criterion: the training side of the gap to the validation loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith.tasks.base import Batch
from tunesmith.tasks.losses import Criterion, CrossEntropy

_PLAIN = CrossEntropy()


@dataclass
class Beside:
    """A criterion that keeps the plain losses of the same logits beside its own: no second forward pass is needed."""

    criterion: Criterion
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Plain losses ``[n]`` and targets of each call."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Criterion`."""
        losses = self.criterion(logits, targets)
        with torch.no_grad():
            self.kept.append((_PLAIN(logits.detach(), targets), targets))
        return losses


def beside(criterion: Criterion, batch: Batch) -> Criterion:
    """The criterion, keeping plain losses where its own are others: weighed, smoothed, of another kind, of mixed examples."""
    plain = isinstance(criterion, CrossEntropy) and not criterion.smoothing and criterion.weights is None
    return criterion if plain and "mixed_labels" not in batch else Beside(criterion)


def plain_sum(criterion: Criterion, batch: Batch, loss: Tensor) -> Tensor:
    """The plain losses of a micro-batch, summed; ``loss`` is the sum that the criterion gave.

    Of mixed examples (mixup) it is what the mixture of their labels does not make unavoidable: its cross-entropy less its
    entropy, which is the log loss where nothing is mixed.
    """
    if not isinstance(criterion, Beside) or not criterion.kept:
        return loss.detach()
    plain, targets = criterion.kept[0]
    if len(criterion.kept) == 1:
        return plain.sum()
    (other, others), share = criterion.kept[1], batch["mix_share"].to(plain.device)
    differs = (targets != others).float()
    differs = differs.mean(-1) if differs.ndim > 1 else differs
    unavoidable = differs * -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))
    losses: Tensor = share * plain + (1 - share) * other - unavoidable
    return losses.sum()
