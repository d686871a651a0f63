"""Shadow models: trained like a run's own model, each on half of its training rows, for the suite ``privacy``.

They are trained in this process, one after the other, and only what they say of the rows is kept, with the run.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.data.old import OldPlaces, prepare_old
from tunesmith.evaluation import shadow_scores
from tunesmith.evaluation.judges import records_at
from tunesmith.evaluation.shadow_scores import Shadow
from tunesmith.training.finish import finish, finished_predictor
from tunesmith.training.fit import fit
from tunesmith.training.parts import open_parts
from tunesmith.training.spec import FitContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunesmith.data.prepared import PreparedData, Split
    from tunesmith.evaluation.predictor import Predictor
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Metrics, Task
    from tunesmith.training.spec import Event


def train_shadows(
    run: Run,
    task: Task,
    prepared: PreparedData,
    wanted: int,
    seed: int,
    *,
    phase: Callable[[str], None] = lambda message: None,
    event: Callable[[Event], None] = lambda event: None,
) -> int:
    """Train those of the first ``wanted`` shadow models that the run has not; returns how many were trained.

    Raises as :func:`tunesmith.training.fit.fit`: half the rows may be too few for an update.
    """
    lacking = [k for k in range(wanted) if shadow_scores.read(run, k, seed, prepared) is None]
    old = prepare_old(run.recipe, task, prepared) if lacking else OldPlaces()
    for k in lacking:
        phase(f"Training shadow model {k + 1} of {wanted}")
        member = shadow_scores.half(len(prepared.splits["train"]), k, seed)
        predictor = trained_on(shadow_recipe(run.recipe, k), task, prepared, old, np.flatnonzero(member), event)
        phase(f"Asking shadow model {k + 1} of {wanted}")
        others = shadow_scores.other_rows(prepared)
        losses = [_losses(predictor, one) for one in (prepared.splits["train"], others)]
        shadow_scores.write(run, k, seed, prepared, Shadow(member, *losses))
    return len(lacking)


def shadow_recipe(recipe: Recipe, number: int) -> Recipe:
    """The recipe with a seed of its own, for one worker whose updates are as large as those of all workers."""
    training = recipe.training
    alone = {
        "num_workers": 1,
        "per_device_train_batch_size": training.per_device_train_batch_size * training.num_workers,
        "seed": training.seed + 1 + number,
    }
    return recipe.model_copy(update={"training": training.model_copy(update=alone)})


def trained_on(
    recipe: Recipe,
    task: Task,
    prepared: PreparedData,
    old: OldPlaces,
    rows: npt.NDArray[np.int64],
    event: Callable[[Event], None] = lambda event: None,
) -> Predictor:
    """The model that the recipe makes of some of the training rows: its best checkpoint where it keeps that, and finished."""
    spec, data = open_parts(recipe, task, prepared, old, rows)
    with tempfile.TemporaryDirectory(prefix="tunesmith-shadow-") as scratch:
        keeper = _Keeper(Path(scratch, "model"), recipe.training.load_best_model_at_end)
        fit(spec, data, FitContext(report=keeper.report, event=event))
        finished = finish(recipe, task, prepared, old, keeper.folder, keeper.metrics)
        return finished_predictor(recipe, task, prepared, keeper.folder, finished)


@dataclasses.dataclass
class _Keeper:
    """Keeps the checkpoint's model that a run would: the best by its score, or the last."""

    folder: Path
    best: bool
    metrics: Metrics = dataclasses.field(default_factory=dict)

    def report(self, metrics: Metrics, folder: Path | None) -> None:
        """Take a checkpoint, whose folder is gone afterwards."""
        if folder is None or not self._is_better(metrics):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(folder / "model", self.folder)
        self.metrics = metrics

    def _is_better(self, metrics: Metrics) -> bool:
        if not self.metrics or not self.best or "score" not in self.metrics:
            return True
        return "score" in metrics and metrics["score"] > self.metrics["score"]


def _losses(predictor: Predictor, split: Split | None) -> npt.NDArray[np.float64]:
    """The loss of each example of a split."""
    if split is None:
        return np.zeros(0)
    return np.asarray([record["loss"] for record in records_at(predictor, split, np.arange(len(split)))], dtype=np.float64)
