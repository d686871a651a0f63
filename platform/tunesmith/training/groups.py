"""Groups that training is to treat alike (``data.groups``): which one each training row is of, and what it weighs in the loss.

Like domains they are told by the columns of the training rows alone, so that every worker, and a resumed run, knows the same.

- ``balanced`` draws each group equally often: :mod:`tunesmith.training.sampling`
- ``reweigh`` weighs each example by :func:`tunesmith.tasks.weights.reweighing`; the weights go with the batches, and
  :func:`weighed` takes them into the criterion, so that no task needs to know of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.slices import slice_columns, values_of
from tunesmith.tasks.weights import reweighing
from tunesmith.training.spec import Groups

if TYPE_CHECKING:
    import pyarrow as pa

    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Batch, State, Task
    from tunesmith.tasks.losses import Criterion
    from tunesmith.training.augmentation import MakeBatch
    from tunesmith.training.spec import Examples, FitSpec

KEY = "data.groups.columns"
MOST = 200
"""Groups: more are rather names of examples than groups of them."""
AT_ONCE = 4096
"""Examples looked at together when their classes are read."""

JOIN = ", "
"""Between the values of several columns in a group's name."""

WEIGHTS = "example_weights"
"""What a batch calls the weights of its examples, float32 ``[examples]``."""


class Rows(Protocol):
    """A split whose rows have columns."""

    def rows(self) -> pa.Table:
        """All columns of the data."""


def groups_of(recipe: Recipe, train: Rows) -> Groups | None:
    """The groups that the recipe names, commonest first; None where it names none.

    Raises :class:`DataError` for a column that the data lacks, with the nearest that it has; for too many or too few groups.
    """
    names = recipe.data.groups.columns
    if not names:
        return None
    columns = [values_of(column) for column in slice_columns(train.rows(), names, KEY).values()]
    found = reduce(lambda one, other: np.char.add(np.char.add(one, JOIN), other), columns)
    values, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    shown = ", ".join(values[np.argsort(-counts, kind="stable")][:4].tolist())
    if len(values) > MOST:
        raise DataError(
            f"{KEY}: {' and '.join(names)} make {len(values):,} groups ({shown}, …), and {MOST} are the most\n"
            "    → Name columns with fewer values, or make coarser ones."
        )
    if len(values) == 1:
        raise DataError(f"{KEY}: all training rows are of one group, {shown}\n    → Name a column whose values differ.")
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return Groups(tuple(values[order].tolist()), rank[inverse.reshape(-1)])


def has_one_class(task: Task, state: State) -> bool:
    """Whether each example has one class, and the task's loss goes by it."""
    return task.columns[task.target].kind in ("label", "labels") and not state.get("multi_label") and "label_counts" in state


def check_groups(recipe: Recipe, task: Task, train: Examples, state: State, groups: Groups | None) -> None:
    """That the task's examples can be weighed. Raises :class:`UserError`."""
    if groups is None or recipe.data.groups.method != "reweigh":
        return
    if not has_one_class(task, state) or task.classes_of(train.features([0]), state) is None:
        raise UserError(
            f"data.groups.method is reweigh, and examples of {recipe.task} do not have one class each\n"
            "    → Set data.groups.method: balanced"
        )


def classes_of(spec: FitSpec, train: Examples) -> npt.NDArray[np.int64]:
    """The class of each example ``[n]``, of a task in which each has one."""
    found = []
    for start in range(0, len(train), AT_ONCE):
        held = spec.task.classes_of(train.features(range(start, min(start + AT_ONCE, len(train)))), spec.preprocessing.state)
        assert held is not None
        found.append(held.argmax(axis=1))
    return np.concatenate(found)


def example_weights(spec: FitSpec, train: Examples, groups: Groups | None) -> npt.NDArray[np.float64] | None:
    """The weight of each training example ``[n]``; None where all weigh the same. Raises as :func:`check_groups`."""
    if groups is None or spec.recipe.data.groups.method != "reweigh":
        return None
    check_groups(spec.recipe, spec.task, train, spec.preprocessing.state, groups)
    return reweighing(groups.codes, classes_of(spec, train))


def with_weights(make: MakeBatch, weights: npt.NDArray[np.float64] | None) -> MakeBatch:
    """Batches that bring the weights of their examples; those behind the training rows (replayed ones) weigh 1."""
    if weights is None:
        return make
    known = torch.tensor(weights, dtype=torch.float32)

    def made(epoch: int, indices: Sequence[int], copies: Sequence[int] = ()) -> Batch:
        places = torch.tensor(list(indices))
        new = places < len(known)
        held = torch.where(new, known[torch.where(new, places, 0)], 1.0)
        return {**make(epoch, indices, copies), WEIGHTS: held}

    return made


@dataclass(frozen=True)
class Weighed:
    """A criterion whose units are examples, each with a weight of its own."""

    criterion: Criterion
    weights: torch.Tensor

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> Any:
        """The weighed loss of each example ``[n]``."""
        losses = self.criterion(logits, targets)
        return losses * self.weights.to(losses.device)


def weighed(batch: Batch, criterion: Criterion) -> tuple[Batch, Criterion]:
    """The batch without the weights of its examples, and the criterion with them."""
    if WEIGHTS not in batch:
        return batch, criterion
    rest = {name: value for name, value in batch.items() if name != WEIGHTS}
    return rest, Weighed(criterion, batch[WEIGHTS])
