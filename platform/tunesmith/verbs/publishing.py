"""A model becomes the run's: its files first, then the word that all of them are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import State, Task
    from tunesmith.training.finish import Finished


def record_base(recipe: Recipe, run: Run) -> None:
    """Which pre-trained model it was made from."""
    from tunesmith.runs.artefact import base_model_record
    from tunesmith.tasks import hub

    base = base_model_record(hub.model_source(recipe), recipe.model.revision)
    run.update(base_model={**base, "name_or_path": recipe.model.model_name_or_path})


def publish(task: Task, run: Run, state: State, local: Path, finished: Finished) -> None:
    """Put the model in ``local`` into the run, with its lineage; ``tunesmith.json`` last: a run that has it has its model."""
    from tunesmith import __version__, storage
    from tunesmith.runs import Artefact

    (local / "tunesmith.json").unlink(missing_ok=True)
    storage.upload(local, run.file("model"))
    run.update(**finished.records)
    artefact = Artefact(
        task=task.name,
        state=state,
        base_model=run.manifest["base_model"],
        run=run.name,
        metrics=finished.metrics,
        tunesmith=__version__,
        calibration=finished.records.get("calibration"),
    )
    artefact.write(run.file("model"))
