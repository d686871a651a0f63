"""``data.few_shot``: how good a model becomes from a handful of labels."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.base import Section


class FewShotSection(Section):
    """Train on a few rows of each class, and repeat it: which rows were drawn matters as much as what was tried."""

    per_class: int | None = Field(default=None, ge=1)
    """Rows of each class that are drawn from the training split; None takes all rows. Other splits stay whole."""

    seeds: int = Field(default=1, ge=1)
    """Repeat the drawing and the training over so many seeds; the verdict is then a mean with its interval over the seeds."""

    seed: int = 42
    """Seed of the (first) drawing."""
