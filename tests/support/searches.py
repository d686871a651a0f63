"""Searches without Ray: trials are played, by a function that says how good values are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.recipe import Recipe
from tunesmith.tuning.search import Search, Surroundings
from tunesmith.tuning.trials import Trial

Good = Callable[[Mapping[str, Any], int], float]
"""Values and evaluation → score."""

RATE = {"training.learning_rate": {"loguniform": [1e-5, 1e-1]}}


@dataclass
class Stage:
    """Where searches are played."""

    folder: Path
    seconds: float = 0.0
    prepared: list[str] = field(default_factory=list)

    def recipe(self, space: Mapping[str, Any] = RATE, **section: Any) -> Recipe:
        return Recipe.from_dict(
            {
                "task": "text-classification",
                "model": {"model_name_or_path": "google-bert/bert-base-uncased"},
                "data": {"train": "hf://stanfordnlp/imdb"},
                "search": {"space": dict(space), **section},
            }
        )

    def search(self, recipe: Recipe) -> Search:
        def prepare(one: Recipe) -> tuple[str, dict[str, Any]]:
            self.prepared.append(one.fingerprint())
            return "prepared", {}

        return Search(recipe, Surroundings(str(self.folder), prepare, clock=lambda: self.seconds))

    def play(self, search: Search, good: Good, *, at_once: int = 1, trials: int = 10_000, evaluations: int = 9) -> None:
        """Run trials until the search is over, or so many have ended."""
        running: list[Trial] = []
        while trials and (running or not search.is_over()):
            begun = search.next() if len(running) < at_once else None
            if begun is not None:
                running.append(begun)
                continue
            self.train(search, running.pop(0), good, evaluations)
            trials -= 1

    def train(self, search: Search, trial: Trial, good: Good, evaluations: int = 9) -> None:
        """One trial to its end."""
        for step in range(1, evaluations + 1):
            self.seconds += 1
            report = {
                "step": step,
                "epoch": float(step),
                "score": good(trial.values, step),
                "metrics": {},
                "seconds": float(step),
            }
            if not search.report(trial.number, {"report": report, "steps": evaluations}):
                search.end(trial.number, {"status": "stopped", "seconds": float(step)})
                return
        search.end(trial.number, {"status": "done", "seconds": float(evaluations)})
