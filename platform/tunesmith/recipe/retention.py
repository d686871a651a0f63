"""``evaluation.retention:``: what the model knew before, judged before, during and after fine-tuning."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.base import Section
from tunesmith.recipe.data import Source


class RetentionSection(Section):
    """How much of the old task or domain is kept."""

    data: Source | dict[str, Source] | None = None
    """Rows of the old task, domain or a reference text, or a mapping from names to such rows. Where they have targets, and the
    pre-trained model's own head answers with the classes of ``data.train``, they are scored; else (other classes, no targets)
    it is measured how far the trunk's representation of them drifts (linear CKA). Rows that also stand in the training split
    are refused."""

    max_drop: float | None = Field(default=None, ge=0)
    """The ceiling: how much worse the metric that chooses the checkpoint may get on any of these sets than before training, in
    the metric's own units; 1 - CKA for drift. None sets no ceiling. At a ceiling training stops; where not one checkpoint is
    within it, the least bad is kept, with a warning."""

    choose: bool = False
    """At the ceiling go on training instead, and only choose no checkpoint that is beyond it."""

    max_samples: int = Field(default=1000, ge=1)
    """Rows of each set that are judged during training, drawn once, seeded; the verdict takes all of them."""
