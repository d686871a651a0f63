"""The suites and perturbations that Tunesmith ships, by name: what a recipe must know of them without importing NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from tunesmith.errors import nearest

if TYPE_CHECKING:
    from tunesmith.recipe.evaluation import EvaluationSection

SUITES: dict[str, str] = {
    "robustness": "tunesmith.evaluation.suites.robustness:robustness",
    "fairness": "tunesmith.evaluation.suites.fairness:fairness",
    "behaviour": "tunesmith.evaluation.suites.behaviour:behaviour",
    "weak_slices": "tunesmith.evaluation.suites.weak_slices:weak_slices",
    "calibration": "tunesmith.evaluation.suites.calibration:calibration",
    "out_of_distribution": "tunesmith.evaluation.suites.out_of_distribution:out_of_distribution",
    "leakage": "tunesmith.evaluation.suites.leakage:leakage",
    "privacy": "tunesmith.evaluation.suites.privacy:privacy",
}
"""Name → ``module:function``, in the order of the report."""

SUITE_GROUP = "tunesmith.suites"
PERTURBATION_GROUP = "tunesmith.perturbations"
"""Groups of entry points by which installed packages bring suites and perturbations."""

TEXTS = ("typos", "keyboard", "case", "whitespace", "lookalikes", "word_drop", "word_swap", "contractions", "irrelevant")
"""Perturbations of texts."""

WORDS = ("typos", "keyboard", "case", "lookalikes")
"""Those that leave the number of words as it is."""

IMAGES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""Perturbations of images: the kinds of ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

FITTING: dict[str, tuple[str, ...]] = {"text": TEXTS, "strings": WORDS, "image": IMAGES}
"""Kind of an input (:data:`tunesmith.tasks.base.Kind`) → the perturbations that fit it."""


def asked(settings: EvaluationSection) -> list[str]:
    """The suites that a recipe runs: those it names, and those that it says whom or what to ask of, in the order of the report.

    >>> from tunesmith.recipe.evaluation import EvaluationSection
    >>> asked(EvaluationSection(suites=["robustness"]))
    ['robustness']
    >>> asked(EvaluationSection(fairness={"groups": ["sex"]}))
    ['fairness']
    """
    named = [*SUITES, *settings.suites]
    return [name for name in dict.fromkeys(named) if name in settings.suites or name in _subjects(settings)]


def is_own(name: str) -> bool:
    """Whether a suite or perturbation is the user's, by its path ``package.module.function``."""
    return "." in name


def brought(group: str) -> dict[str, str]:
    """What installed packages bring: name → ``module:function``."""
    return {one.name: one.value for one in entry_points(group=group)}


def unknown(name: str, known: Sequence[str], what: str) -> tuple[str, str]:
    """Why a name is none, and what to write instead.

    >>> unknown("robustnes", ["robustness"], "suite")
    ('there is no suite robustnes', 'did you mean robustness?')
    """
    near = nearest(name.lower().replace("-", "_").replace(" ", "_"), known)
    fix = f"did you mean {near}?" if near else f"write one of {', '.join(known)}, or package.module.function of your own"
    return f"there is no {what} {name}", fix


def _subjects(settings: EvaluationSection) -> list[str]:
    """Suites that are asked for by what they are about."""
    given = {
        "fairness": settings.fairness.groups,
        "behaviour": settings.behaviour,
        "out_of_distribution": settings.out_of_distribution,
    }
    return [name for name, subject in given.items() if subject]
