"""What :func:`~tunesmith.training.fit.fit` is given, opened from prepared data, by workers and elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.data.old import OldPlaces
from tunesmith.tasks.base import Preprocessing
from tunesmith.training.batch_plan import Indices
from tunesmith.training.groups import groups_of
from tunesmith.training.spec import FitData, FitSpec, OldData
from tunesmith.training.splits import chosen

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Task


def open_parts(
    recipe: Recipe, task: Task, prepared: PreparedData, old: OldPlaces | None = None, rows: Indices | None = None
) -> tuple[FitSpec, FitData]:
    """What is trained, and on what: all training rows, or those with the indices ``rows``."""
    old = old or OldPlaces()
    train, validation = prepared.splits["train"], prepared.splits.get("validation")
    domains, groups = train.domains, groups_of(recipe, train)
    data = FitData(
        train if rows is None else chosen(train, rows),
        validation if validation is not None and len(validation) else None,
        replay=old.replay.open() if old.replay is not None else None,
        retention={name: OldData(place.open(), place.by) for name, place in old.retention.items()},
        domains=domains if domains is None or rows is None else domains.take(rows),
        groups=groups if groups is None or rows is None else groups.take(rows),
    )
    return FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe))), data
