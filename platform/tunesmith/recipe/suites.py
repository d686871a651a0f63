"""The sections of ``evaluation:`` that say what the suites of the test bench ask: see ``docs/testing-models.md``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.recipe.base import Section

Severity = Annotated[int, Field(ge=1, le=5)]


class RobustnessSection(Section):
    """What the suite ``robustness`` changes in the examples before it asks again."""

    kinds: list[str] = Field(default_factory=list)
    """Perturbations by name, or ``package.module.function`` of your own; empty for all that fit the task. Texts: typos,
    keyboard, case, whitespace, lookalikes, word_drop, word_swap, contractions, irrelevant. Images: those of ImageNet-C."""

    severities: list[Severity] = Field(default_factory=lambda: [1, 3, 5])
    """How strong, each from 1 to 5."""

    max_examples: int = Field(default=500, ge=10)
    """Examples that are changed, drawn once, seeded; each is answered once for every kind and severity."""


class FairnessSection(Section):
    """Between whom the suite ``fairness`` compares."""

    groups: list[str] = Field(default_factory=list)
    """Columns of the data whose values are groups; naming one runs the suite."""

    intersections: bool = True
    """Also compare the groups that two or more of the columns make together."""

    positive: str | None = None
    """The class whose selection is compared. None is the last of two classes, and of more each against the rest."""

    min_group: int = Field(default=30, ge=1)
    """Examples below which a group is shown and marked, but left out of the differences."""


class PrivacySection(Section):
    """How the suite ``privacy`` asks whether the model betrays which examples it was trained on."""

    max_examples: int = Field(default=2000, ge=20)
    """Training rows, and as many test rows at the most, that are told apart; drawn once, seeded."""

    shadow_models: int = Field(default=0, ge=0, le=256, multiple_of=2)
    """Models that are trained on halves of the training rows by the same recipe, for the stronger attack (LiRA): an even
    number, each costs half a training; 0 leaves it out. They are trained once and kept with the run."""


class WeakSlicesSection(Section):
    """Where the suite ``weak_slices`` looks."""

    columns: list[str] = Field(default_factory=list)
    """Columns of the data; empty for every one that is no role and has at most 20 values, or is of numbers (in quarters)."""

    pairs: bool = True
    """Look at pairs of columns too."""

    min_examples: int = Field(default=20, ge=5)
    """Examples that a slice has at least."""
