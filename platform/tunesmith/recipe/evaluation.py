"""``evaluation:``: how the fine-tuned model is judged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.base import Section
from tunesmith.recipe.retention import RetentionSection


class EvaluationSection(Section):
    """The verdict."""

    slices: list[str] = Field(default_factory=list)
    """Columns of the data; the metrics are also given for each of their values."""

    baseline: bool = True
    """Judge the pre-trained model (where it has the same labels) and the majority class too."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the intervals."""

    bootstrap_samples: int = Field(default=1000, ge=100)
    """Resamples behind an interval that has no closed form."""

    retention: RetentionSection = Field(default_factory=RetentionSection)
    """What the model knew before, judged before, during and after."""

    calibrate: Literal["temperature"] | None = None
    """``temperature`` fits one number on the validation split by which all logits are divided (Guo et al. 2017), so that
    probabilities are as sure as they are right. It is folded into the head's last linear layer, where any loader finds it."""

    max_examples: int = Field(default=12, ge=0)
    """Best and worst examples shown in the report, each."""

    seed: int = 42
    """Seed of the resamples."""
