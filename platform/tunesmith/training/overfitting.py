"""Tells when a model begins to learn its training rows by heart.

The gap of an evaluation is the validation loss minus the mean training loss since the evaluation before. Both are the plain log
loss, whatever criterion the model learns by. Training losses are taken with dropout and augmentation, so the gap's size says
little; what counts is how it moves.

The rule: in :data:`IN_A_ROW` evaluations in a row the validation loss is above its lowest so far, and the gap is larger than it
was there. One such evaluation is chance often enough; a gap that grows while the validation loss still falls does no harm
(Prechelt 1998, "Early Stopping - But When?", stops by the same generalisation loss over successive strips).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

IN_A_ROW = 2
"""Evaluations that must agree."""


@dataclass(frozen=True)
class Overfit:
    """When it began, and how far it went."""

    best_step: int
    """The evaluation with the lowest validation loss."""
    best_loss: float
    best_gap: float
    step: int
    """The last evaluation at which the rule held."""
    loss: float
    gap: float

    def sentence(self, *, so_far: bool = False) -> str:
        """What happened and what to do, for people; ``so_far`` while training goes on, which may yet take it back."""
        return (
            f"Overfitting{' so far' * so_far}: since step {self.best_step:,} the validation loss rose from "
            f"{self.best_loss:.4g} to {self.loss:.4g} while the gap to the training loss grew from {self.best_gap:.4g} to "
            f"{self.gap:.4g} (step {self.step:,}). "
            "Fewer epochs, training.early_stopping_patience, model.dropout, training.weight_decay or more data help."
        )


def overfitting(history: Iterable[Mapping[str, Any]]) -> Overfit | None:
    """The last time the rule held among the lines of ``metrics.jsonl``, or None; a lower validation loss later takes it back.

    >>> lines = [{"split": "validation", "step": k, "loss": loss, "gap": gap}
    ...          for k, loss, gap in [(1, 0.5, 0.0), (2, 0.4, 0.1), (3, 0.45, 0.2), (4, 0.5, 0.4)]]
    >>> overfitting(lines[:3]), overfitting(lines).best_step
    (None, 2)
    """
    best: Mapping[str, Any] | None = None
    found, agreed = None, 0
    for line in history:
        if line.get("split") != "validation" or not all(isinstance(line.get(k), int | float) for k in ("loss", "gap", "step")):
            continue
        if best is None or line["loss"] <= best["loss"]:
            best, agreed, found = line, 0, None  # what came before was passed
            continue
        agreed = agreed + 1 if line["gap"] > best["gap"] else 0
        if agreed >= IN_A_ROW:
            found = Overfit(best["step"], best["loss"], best["gap"], line["step"], line["loss"], line["gap"])
    return found
