"""Seeded damage to inputs, of severity 1 to 5: the same for the same seed, example, kind and severity, in whatever order.

A perturbation is a function ``(value, severity, rng) -> value`` that keeps the type of its value: a text (``str``), the words
of a tagged sentence (a list as long as it was), or an image (uint8 ``[height, width, 3]``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.errors import UserError
from tunesmith.recipe.suite_names import FITTING, IMAGES, PERTURBATION_GROUP, TEXTS, WORDS
from tunesmith.tasks import images
from tunesmith.tasks import labels as words_of

if TYPE_CHECKING:
    from tunesmith.tasks.base import Task

Perturbation = Callable[[Any, int, np.random.Generator], Any]

LARGEST = 512
"""Longer side in pixels to which larger images are shrunk before they are damaged: models see fewer, and time goes with it."""

_IMAGE_MODULES = {
    **dict.fromkeys(IMAGES[:3], "noise"),
    **dict.fromkeys(IMAGES[3:7], "blur"),
    **dict.fromkeys(IMAGES[7:11], "weather"),
    **dict.fromkeys(IMAGES[11:], "digital"),
}
_HERE = "tunesmith.evaluation.perturbations"

OURS: dict[str, dict[str, str]] = {
    "text": {name: f"{_HERE}.texts:{name}" for name in TEXTS},
    "strings": {name: f"{_HERE}.words:{name}" for name in WORDS},
    "image": {name: f"{_HERE}.{module}:{name}" for name, module in _IMAGE_MODULES.items()},
}
"""Kind of an input → name → ``module:function``."""


def input_role(task: Task) -> tuple[str, str] | None:
    """The role that is damaged, the task's first input, and its kind; None where no perturbation fits it."""
    role, column = next(iter(task.columns.items()))
    return (role, column.kind) if column.kind in FITTING else None


def find(names: Sequence[str], kind: str, folders: Sequence[str] = ()) -> dict[str, Perturbation]:
    """The perturbations of these names, or all that fit; one of the user's own by its path. Raises :class:`UserError`."""
    from tunesmith.evaluation.suites.run import load

    found = {}
    for name in names or FITTING[kind]:
        if name in (*TEXTS, *IMAGES) and name not in OURS[kind]:
            raise UserError(f"evaluation.robustness.kinds: {name} does not fit {kind}\n    → It takes {', '.join(OURS[kind])}")
        found[name.rpartition(".")[2]] = load(name, OURS[kind], PERTURBATION_GROUP, "perturbation", folders)
    return found


def generator(seed: int, example: str, kind: str, severity: int) -> np.random.Generator:
    """The random numbers of one change of one example."""
    key = hashlib.blake2b(f"{seed}\n{example}\n{kind}\n{severity}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(key, "little"))


def readable(value: Any, kind: str) -> Any:
    """An input as perturbations take it: its text, its list of words, its pixels (uint8 ``[height, width, 3]``)."""
    if kind == "image":
        image = images.open_image(value)
        if max(image.size) > LARGEST:
            image.thumbnail((LARGEST, LARGEST))
        return np.asarray(image)
    return words_of.words(value) if kind == "strings" else value


def answerable(value: Any, kind: str) -> Any:
    """A damaged input as a target takes it."""
    if kind != "image":
        return value
    from PIL import Image

    return Image.fromarray(value)
