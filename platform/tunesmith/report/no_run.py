"""What stands in a report for the run where there is none: a served model of which only its answers are known."""

from __future__ import annotations

import datetime as dt
import sys
from functools import cached_property
from typing import Any

from tunesmith import storage
from tunesmith.evaluation.results import Evaluation
from tunesmith.recipe import Recipe
from tunesmith.runs import manifest as manifests
from tunesmith.runs.masking import masked_command


class NoRun:
    """A run that has no record but the evaluation itself."""

    path = ""

    def __init__(self, evaluation: Evaluation) -> None:
        self.name = evaluation.run
        self.manifest: dict[str, Any] = {
            **dict.fromkeys(("git", "split_hash", "python")),
            "packages": manifests.packages(),
            "hardware": manifests.hardware(),
            "tunesmith": manifests.version("tunesmith"),
            "name": evaluation.run,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **{name: {} for name in ("data", "seeds", "base_model")},
            "command": masked_command(sys.argv),
        }
        self.history: list[dict[str, Any]] = []
        self.recipe_values: dict[str, Any] = {}
        self.verdict: dict[str, Any] = {}
        self._task, self._folder = evaluation.task, evaluation.folder

    def file(self, name: str) -> str:
        """A place in the evaluation's folder, where no run's files are."""
        return storage.join(self._folder, name)

    @cached_property
    def recipe(self) -> Recipe:
        """A recipe that says nothing but the task."""
        stand_ins = {"model": {"model_name_or_path": "served"}, "data": {"train": "unknown"}}
        return Recipe.from_dict({"task": self._task, **stand_ins}, check_paths=False)
