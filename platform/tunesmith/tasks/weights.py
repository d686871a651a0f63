"""How much each class weighs in the loss, and how uneven the classes are: plain arithmetic on their counts, no tensors.

``inverse`` weighs a class by one over its count. ``effective`` weighs it by one over its *effective number* of examples,
``(1 - beta^n) / (1 - beta)`` (Cui et al. 2019, arXiv:1901.05555, equation 2): examples overlap, so that the thousandth brings
less than the tenth. At beta 0 every class weighs the same; towards 1 the effective number is the count itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError, UserError
from tunesmith.recipe.loss_names import BETA, unknown_class

if TYPE_CHECKING:
    from tunesmith.recipe.training import TrainingSection
    from tunesmith.tasks.base import State

Array = npt.NDArray[np.float64]

HIGH_RATIO = 10.0
"""Commonest to rarest class above which the reader is told of the remedies. A choice of ours, no result."""


def effective_number(counts: npt.ArrayLike, beta: float = BETA) -> Array:
    """The effective number of examples of each class, for ``counts`` ``[classes]``.

    >>> effective_number([1, 2, 1000], beta=0.5).round(3).tolist()
    [1.0, 1.5, 2.0]
    """
    n = np.asarray(counts, dtype=np.float64)
    return -np.expm1(n * np.log(beta)) / (1 - beta) if beta > 0 else np.minimum(n, 1.0)


def class_weights(training: TrainingSection, state: State) -> Array | None:
    """The weight of each class ``[classes]`` in the order of the state's labels, or None where all weigh the same.

    They are scaled to mean 1 over the training labels, so that the loss stays comparable. A class without training examples
    is weighed as if it had one.

    Raises:
        DataError: a weight for a class that does not exist, or 0 for all that do.
        UserError: the task counts no classes.
    """
    chosen = training.class_weights
    if chosen == "none" or not chosen:
        return None
    labels, counts = state.get("labels"), state.get("label_counts")
    if not labels or not counts:
        raise UserError(f"training.class_weights is {chosen}, and this task counts no classes\n    → Remove it")
    given = np.maximum(np.asarray(counts, dtype=np.float64), 1.0)
    if isinstance(chosen, Mapping):
        weights = _as_given(chosen, labels)
    elif chosen == "inverse":
        weights = 1 / given
    else:
        weights = 1 / effective_number(given, training.class_weights_args.get("beta", BETA))
    total = float((given * weights).sum())
    if total <= 0:
        raise DataError("training.class_weights: every class weighs 0\n    → Give the classes that matter a weight")
    return np.asarray(weights * given.sum() / total, dtype=np.float64)


def reweighing(groups: npt.ArrayLike, classes: npt.ArrayLike) -> Array:
    """The weight ``P(group) P(class) / P(group, class)`` of each example ``[n]``, from codes ``[n]`` of its group and class.

    Weighed so, class and group are independent of one another (Kamiran and Calders 2012, doi:10.1007/s10115-011-0463-8,
    section 4.2); shares are those among the examples. The mean is 1 where every group has every class, and else below.

    >>> reweighing([0, 0, 0, 1], [0, 0, 1, 1]).round(3).tolist()
    [0.75, 0.75, 1.5, 0.5]
    """
    g, y = np.asarray(groups, dtype=np.int64), np.asarray(classes, dtype=np.int64)
    table = np.zeros((int(g.max(initial=0)) + 1, int(y.max(initial=0)) + 1))
    np.add.at(table, (g, y), 1.0)
    alike = np.outer(table.sum(1), table.sum(0)) / max(len(g), 1)
    return np.asarray(alike[g, y] / table[g, y], dtype=np.float64)


def _as_given(weights: Mapping[str, float], labels: Sequence[str]) -> Array:
    """The recipe's own weights in the order of the labels, 1 for those that it does not name."""
    for name in weights:
        wrong = unknown_class(name, labels)
        if wrong:
            what, fix = wrong
            raise DataError(f"training.class_weights.{name}: {what} in the training data\n    → {fix[0].upper() + fix[1:]}")
    return np.asarray([weights.get(name, 1.0) for name in labels], dtype=np.float64)


def measure(labels: Sequence[str], counts: Sequence[int]) -> dict[str, Any]:
    """How uneven the classes are, as plain JSON.

    ``ratio``: of the commonest class to the rarest that occurs. ``entropy``: Shannon's, over its largest value; 1 is even.
    ``classes``: the number of even classes with the same entropy (its exponential). ``effective``: Cui's effective number of
    examples of each class at :data:`~tunesmith.recipe.loss_names.BETA`. ``absent``: classes without any example.

    >>> found = measure(["a", "b", "c"], [90, 10, 0])
    >>> found["ratio"], round(found["entropy"], 3), round(found["classes"], 2), found["absent"]
    (9.0, 0.296, 1.38, ['c'])
    """
    n = np.asarray(counts, dtype=np.float64)
    there = n[n > 0]
    shares = there / there.sum() if there.size else there
    entropy = float((shares * -np.log(shares)).sum()) + 0.0  # never -0.0
    return {
        "counts": {name: int(count) for name, count in zip(labels, counts, strict=True)},
        "ratio": float(there.max() / there.min()) if there.size else 1.0,
        "entropy": entropy / float(np.log(len(n))) if len(n) > 1 else 1.0,
        "classes": float(np.exp(entropy)),
        "effective": dict(zip(labels, effective_number(n).round(1).tolist(), strict=True)),
        "absent": [name for name, count in zip(labels, counts, strict=True) if not count],
    }


def advice(state: State, training: TrainingSection) -> str | None:
    """One line for the reader where the classes are very uneven and nothing was done about it."""
    labels, counts = state.get("labels") or [], state.get("label_counts") or []
    there = [(count, name) for name, count in zip(labels, counts, strict=False) if count]
    if len(there) < 2 or remedies(training):
        return None
    (fewest, rare), (most, common) = min(there), max(there)
    if most <= HIGH_RATIO * fewest:
        return None
    return (
        f"The classes are uneven: {common} has {most / fewest:,.0f} times the examples of {rare} ({fewest:,}). Rare ones are "
        "learned badly that way; try training.class_weights=effective, training.sampling=balanced or training.loss=focal."
    )


def remedies(training: TrainingSection) -> list[str]:
    """The settings of a recipe that are meant against uneven classes, as ``key=value``."""
    done = []
    if training.class_weights != "none":
        shown = training.class_weights if isinstance(training.class_weights, str) else "given"
        done.append(f"training.class_weights={shown}")
    if training.sampling != "none":
        done.append(f"training.sampling={training.sampling}")
    if training.loss == "focal":
        done.append("training.loss=focal")
    return done
