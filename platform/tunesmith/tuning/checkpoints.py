"""The checkpoints of trials: a trial keeps its best and its latest, one that lost keeps none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tunesmith import storage
from tunesmith.tuning.trials import CHECKPOINTS, Trial, folder_of

WHOLE = "whole"
"""An empty file that is written last: without it a checkpoint is half of one, left by a process that died."""


def place_of(folder: str, step: int) -> str:
    """Where a trial's checkpoint of a step is."""
    return storage.join(folder, CHECKPOINTS, f"step-{step:08d}")


def steps_of(folder: str) -> list[int]:
    """The steps of a trial's checkpoints, in order."""
    found = storage.list_dirs(storage.join(folder, CHECKPOINTS)) if storage.exists(storage.join(folder, CHECKPOINTS)) else []
    whole = [place for place in found if storage.exists(storage.join(place, WHOLE))]
    return sorted(int(storage.name(place).removeprefix("step-")) for place in whole)


def latest(folder: str) -> str | None:
    """A trial's last checkpoint, or None."""
    steps = steps_of(folder)
    return place_of(folder, steps[-1]) if steps else None


def keep(source: Path, folder: str, step: int, scores: dict[int, float]) -> int:
    """Put a checkpoint into the trial's folder and drop those that are neither best nor latest; returns its bytes.

    ``scores`` are those of all evaluations so far, by step.
    """
    place = place_of(folder, step)
    storage.delete(place)
    storage.upload(source, place)
    storage.write_bytes(storage.join(place, WHOLE), b"")
    there = [one for one in steps_of(folder) if one != step]
    best = max(scores, key=lambda one: (scores[one], -one), default=step)
    for one in there:
        if one != best:
            storage.delete(place_of(folder, one))
    return sum(file.stat().st_size for file in source.rglob("*") if file.is_file())


def best_of(run: str, trial: Trial) -> str | None:
    """The checkpoint that a finished trial is worth: its best evaluation's, where that is still there."""
    folder, steps = folder_of(run, trial.number), steps_of(folder_of(run, trial.number))
    if not steps or trial.best is None:
        return None
    return place_of(folder, trial.best.step if trial.best.step in steps else steps[-1])


def drop(run: str, trial: Trial) -> None:
    """Delete all checkpoints of a trial."""
    storage.delete(storage.join(folder_of(run, trial.number), CHECKPOINTS))


def losers(trials: Sequence[Trial], winners: set[int], generations: int = 1) -> list[Trial]:
    """Those that have ended, and whose checkpoints nobody needs any more.

    In a population the last generation that has ended is still copied from.
    """
    newest = max((trial.generation for trial in trials), default=0)
    return [
        trial
        for trial in trials
        if trial.status in ("done", "stopped", "failed")
        and trial.number not in winners
        and (generations == 1 or trial.generation < newest - 1 or trial.score in (None, -math.inf))
    ]
