"""``evaluation:``: how the fine-tuned model is judged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tunesmith.recipe.base import Section
from tunesmith.recipe.data import Source
from tunesmith.recipe.retention import RetentionSection
from tunesmith.recipe.suites import FairnessSection, PrivacySection, RobustnessSection, WeakSlicesSection


class EvaluationSection(Section):
    """The verdict."""

    slices: list[str] = Field(default_factory=list)
    """Columns of the data; the metrics are also given for each of their values."""

    in_domain: list[str] = Field(default_factory=list)
    """Named data sets that count as in domain, against which all others are held (the generalisation gap); empty means those
    that training has rows of."""

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

    max_samples: int = Field(default=300, ge=0)
    """Examples at the end of the report, to be looked through and filtered: the wrong ones first, then right ones, of which at
    least a quarter are; 0 leaves them out. Ten thousand texts make a page of some 5 MB."""

    suites: list[str] = Field(default_factory=list)
    """Suites of the test bench: ``robustness``, ``fairness``, ``behaviour``, ``weak_slices``, ``calibration``,
    ``out_of_distribution``, ``leakage``, ``privacy``; or ``package.module.function`` of your own. They are asked after the
    verdict is made."""

    suite_args: dict[str, Any] = Field(default_factory=dict)
    """What suites of your own are told, by the suite's name."""

    robustness: RobustnessSection = Field(default_factory=RobustnessSection)
    """How much worse the model gets when its inputs are damaged."""

    fairness: FairnessSection = Field(default_factory=FairnessSection)
    """Whether groups are treated alike."""

    behaviour: str | None = None
    """A YAML file of behavioural tests: what the model must be able to say, what must not change its answer, and which way a
    change must move it. Naming one runs the suite."""

    weak_slices: WeakSlicesSection = Field(default_factory=WeakSlicesSection)
    """Where the model is significantly worse than elsewhere."""

    out_of_distribution: dict[str, Source] = Field(default_factory=dict)
    """Names of data of another kind, which needs no labels, to its places: whether the model's doubt tells it from the judged
    split. Naming one runs the suite."""

    privacy: PrivacySection = Field(default_factory=PrivacySection)
    """Whether the model betrays which examples it was trained on."""

    seed: int = 42
    """Seed of the resamples, and of what suites draw."""
