"""Augmented images: every example's own operations, then what it is joined with.

Images are float32 in [0, 1] here, before they are normalised, so that black is 0 and white is 1 for every model. Each operation
takes all images of a batch that it falls on at once; what it draws, it draws for each from that example's own random numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunesmith.errors import ModelError
from tunesmith.recipe.augment import MIXING
from tunesmith.tasks.augment import MIX, Augmentation, Source, geometry, pixels
from tunesmith.tasks.augment.randaugment import randaugment
from tunesmith.tasks.base import State

if TYPE_CHECKING:
    from tunesmith.recipe.augment import CutMix, MixUp

Images = torch.Tensor
"""float32 ``[batch, channels, height, width]`` in [0, 1]."""

OPERATIONS: dict[str, Any] = {
    "rotation": geometry.rotation,
    "hflip": geometry.hflip,
    "vflip": geometry.vflip,
    "crop": geometry.crop,
    "color_jitter": pixels.color_jitter,
    "noise": pixels.noise,
    "blur": pixels.blur,
    "erasing": pixels.erasing,
    "randaugment": randaugment,
}
"""Name → function of images, the operation, and a generator for each image."""


@dataclass(frozen=True)
class Pictures:
    """Augmented images, and what they are of."""

    images: Images
    labels: list[Any]
    """The stored target of each example; empty where there are none."""
    mixed_labels: list[Any]
    """That of the example which each was joined with, or its own; empty where nothing is joined."""
    mix_share: torch.Tensor
    """float32 ``[batch]``: how much of its own label counts."""


def pictures(source: Source, indices: Sequence[int], state: State, augmentation: Augmentation) -> Pictures:
    """The images of these examples in this epoch. Raises :class:`ModelError` where there are no plain pixels."""
    images, labels = _changed(source, indices, state, augmentation)
    mixing = [operation for operation in augmentation.operations if operation.name in MIXING]
    share = torch.ones(len(images))
    if not mixing:
        return Pictures(images, labels, [], share)
    joined = [_partner(len(source), rng, mixing) for rng in augmentation.rngs(indices, MIX)]
    rows = [row for row, one in enumerate(joined) if one is not None]
    mixed = list(labels)
    if rows:
        partners = [one[1] for one in joined if one is not None]
        others, theirs = _changed(source, partners, state, dataclasses.replace(augmentation, copies=()))
        for place, row in enumerate(rows):
            operation, _, rng = joined[row]  # type: ignore[misc]  # rows hold those that are not None
            join = mixup if operation.name == "mixup" else cutmix
            images[row], share[row] = join(images[row], others[place], operation, rng)
            if labels:
                mixed[row] = theirs[place]
    return Pictures(images, labels, mixed, share)


def _changed(source: Source, indices: Sequence[int], state: State, augmentation: Augmentation) -> tuple[Images, list[Any]]:
    """The images after their own operations, and the stored targets."""
    if state["pixels"] != "uint8":
        raise ModelError(
            "data.augment: the model's image processor does more than scaling and normalising, so that there are no plain "
            "pixels to change. Remove data.augment, or choose a model with another processor"
        )
    features = source.features(list(indices))
    images = torch.from_numpy(np.stack([f.values["pixel_values"] for f in features])).to(torch.float32).div_(255)
    rngs = augmentation.rngs(indices)
    for operation in augmentation.operations:
        if operation.name in MIXING:
            continue
        rows = [row for row, rng in enumerate(rngs) if rng.random() < operation.p]
        if rows:
            images[rows] = OPERATIONS[operation.name](images[rows], operation, [rngs[row] for row in rows])
    return images, [f.values["labels"] for f in features if "labels" in f.values]


def _partner(n: int, rng: np.random.Generator, mixing: Sequence[Any]) -> tuple[Any, int, np.random.Generator] | None:
    """The first mixing operation whose chance falls on an example, and whom it is joined with: any training example."""
    for operation in mixing:
        if rng.random() < operation.p:
            return operation, int(rng.integers(n)), rng
    return None


def mixup(own: Images, other: Images, operation: MixUp, rng: np.random.Generator) -> tuple[Images, float]:
    """``λ · own + (1 - λ) · other`` with λ ~ Beta(α, α), and λ. Zhang et al. 2018, equation 1; drawn for each pair."""
    share = float(rng.beta(operation.alpha, operation.alpha))
    return share * own + (1 - share) * other, share


def cutmix(own: Images, other: Images, operation: CutMix, rng: np.random.Generator) -> tuple[Images, float]:
    """A rectangle of ``1 - λ`` of the area from the other, cut off at the border; the share is what is left of the own area.

    Yun et al. 2019, equation 2 and algorithm A1.
    """
    height, width = own.shape[-2:]
    side = np.sqrt(1 - rng.beta(operation.alpha, operation.alpha))
    y, x = rng.random(2) * (height, width)
    top, bottom = (int(np.clip(round(y + sign * side * height / 2), 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(round(x + sign * side * width / 2), 0, width)) for sign in (-1, 1))
    joined = own.clone()
    joined[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return joined, 1 - (bottom - top) * (right - left) / (height * width)
