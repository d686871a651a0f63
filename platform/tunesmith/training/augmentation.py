"""How the loop comes by its training batches: as the data was prepared, or augmented; and samples of what came out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tunesmith.errors import UserError
from tunesmith.evaluation.examples import MOST_TEXT, thumbnail
from tunesmith.tasks import labels
from tunesmith.tasks.augment import Augmentation, Augments
from tunesmith.tasks.base import Batch, Preprocessing
from tunesmith.training.spec import Examples, FitSpec


class MakeBatch(Protocol):
    """Examples → tensors."""

    def __call__(self, epoch: int, indices: Sequence[int], copies: Sequence[int] = ()) -> Batch:
        """``copies`` says how often each was drawn before in the epoch; empty where none was."""


SHOWN, VARIANTS = 4, 6
"""Training examples in the samples, and epochs in which each is shown."""


def batch_maker(spec: FitSpec, split: Examples) -> MakeBatch:
    """How batches of the training split are made. Raises :class:`UserError` where the task cannot augment as asked.

    One example is made at once, so that what cannot work ends the training before its first update.
    """
    operations = spec.recipe.data.augment
    if not operations:
        return lambda epoch, indices, copies=(): spec.task.collate(split.features(indices), spec.preprocessing)
    task, preprocessing = augmenting(spec), _own(spec.preprocessing)
    seed = spec.recipe.training.seed

    def make(epoch: int, indices: Sequence[int], copies: Sequence[int] = ()) -> Batch:
        return task.augment(split, indices, preprocessing, Augmentation(operations, seed, epoch, copies))

    make(0, [0])
    return make


def augmenting(spec: FitSpec) -> Augments:
    """The task, which must take every operation of the recipe. Raises :class:`UserError`."""
    task: Any = spec.task
    if not isinstance(task, Augments):
        raise UserError(f"data.augment: the task {spec.task.name} cannot augment its examples\n    → Remove data.augment")
    for operation in spec.recipe.data.augment:
        if operation.name not in task.augmentations:
            raise UserError(
                f"data.augment: {operation.name} does not fit the examples of {spec.task.name}\n"
                f"    → Write one of {', '.join(task.augmentations)}"
            )
    return task


def samples(spec: FitSpec, split: Examples) -> list[dict[str, Any]]:
    """A few training examples, each as it is and as the first epochs see it: ``original`` and ``variants``, as plain JSON.

    They are spread over the split, and go through the code that trains. Images are ``data:`` URIs.
    """
    task, seed = augmenting(spec), spec.recipe.training.seed
    indices = np.unique(np.linspace(0, len(split) - 1, SHOWN).round().astype(int)).tolist()

    def shown(augmentation: Augmentation) -> list[dict[str, Any]]:
        found = task.augmented(split, indices, spec.preprocessing, augmentation)
        return [
            {role: _shown(one[role], column.kind) for role, column in spec.task.columns.items() if role in one} for one in found
        ]

    plain = shown(Augmentation((), seed))
    epochs = [shown(Augmentation(spec.recipe.data.augment, seed, epoch)) for epoch in range(VARIANTS)]
    return [{"original": one, "variants": [epoch[row] for epoch in epochs]} for row, one in enumerate(plain)]


def _shown(value: Any, kind: str) -> Any:
    """A value of an example as JSON: a thumbnail, a list of words, or text."""
    if kind == "image":
        return thumbnail(value)
    if kind in ("strings", "tags"):
        return labels.words(value)
    return str(value)[:MOST_TEXT] if value is not None else None


def _own(preprocessing: Preprocessing) -> Preprocessing:
    """With a processor of the loader's own: a tokenizer must not be used while another thread saves it."""
    return Preprocessing(preprocessing.state, copy.deepcopy(preprocessing.processor))
