"""What all trials of a search stand on: their data, and the metric that they go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.data.old import OldPlaces, prepare_old
from tunesmith.data.prepare import prepare
from tunesmith.errors import UserError
from tunesmith.recipe.search import MEASURED
from tunesmith.recipe.search_space import parse
from tunesmith.recipe.searched import own_values, trial_recipe
from tunesmith.tasks.metrics import greater_is_better
from tunesmith.training.precheck import check_training, reported
from tunesmith.training.validation import missing_metric

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Task
    from tunesmith.training.progress import Progress


class Ground:
    """The data, prepared once for each choice of values that changes it, and the metric."""

    def __init__(self, recipe: Recipe, task: Task, progress: Progress | None = None) -> None:
        self._task, self._progress = task, progress
        self._known: dict[str, tuple[PreparedData, OldPlaces]] = {}
        self._judged: str | None = None
        self.space, _ = parse(recipe.search.space)
        self.recipe = trial_recipe(recipe, self.space, own_values(recipe, self.space))
        """The recipe of a trial with the recipe's own values."""
        settings = self.recipe.training
        self.metric = settings.metric_for_best_model or task.metric
        more = settings.greater_is_better
        self.sign = 1 if (greater_is_better(self.metric) if more is None else more) else -1

    @classmethod
    def prepare(cls, recipe: Recipe, task: Task, progress: Progress) -> Ground:
        """Prepare the recipe's own data, and check what can be checked before Ray starts. Raises :class:`UserError`."""
        ground = cls(recipe, task, progress)
        progress.phase("Preparing data")
        prepared, old = ground.data(ground.recipe)
        if not len(prepared.splits.get("validation", ())):
            raise UserError("trials are compared on the validation split, and it is empty\n    → Raise data.split.validation")
        _check_metrics(recipe, task, prepared)
        check_training(ground.recipe, task, prepared, old)
        ground._progress = None
        return ground

    def data(self, recipe: Recipe) -> tuple[PreparedData, OldPlaces]:
        """A trial's data. Raises :class:`UserError` where its validation rows are others than those of the first."""
        key = recipe.fingerprint("task", "model", "data", "training.replay", "evaluation.retention")
        if key not in self._known:
            tell = self._progress.prepared if self._progress is not None else None
            prepared = prepare(recipe, self._task, output_dir=recipe.training.output_dir, progress=tell, engine="local")
            judged = prepared.splits["validation"].hash if "validation" in prepared.splits else ""
            if self._judged not in (None, judged):
                raise UserError("with these values other validation rows are left: it could not be compared with other trials")
            self._judged = judged
            self._known[key] = prepared, prepare_old(recipe, self._task, prepared, tell)
        return self._known[key]

    def places(self, recipe: Recipe) -> tuple[str, dict[str, Any]]:
        """Where a trial's data is. Raises :class:`UserError`."""
        prepared, old = self.data(recipe)
        return prepared.path, old.to_json()


def _check_metrics(recipe: Recipe, task: Task, prepared: PreparedData) -> None:
    """Refuse a metric that no trial would report, where the task can answer a few rows without a model.

    Where it cannot (several labels at once, tags), the first trials say so. Raises :class:`UserError`.
    """
    search, found = recipe.search, reported(task, prepared)
    if found is None:
        return
    wanted = {name: "search.objectives" for name in search.objectives if name not in MEASURED}
    if search.metric is not None:
        wanted[search.metric] = "search.metric"
    elif not search.objectives and recipe.training.metric_for_best_model is not None:
        wanted[recipe.training.metric_for_best_model] = "training.metric_for_best_model"
    for name, key in wanted.items():
        if name not in found:
            there = [*found, *MEASURED] if key == "search.objectives" and name != search.objectives[0] else found
            raise UserError(missing_metric(key, name, there))
