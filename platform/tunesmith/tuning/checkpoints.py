"""The checkpoints of trials: a trial keeps its best and its latest, one that lost keeps none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tunesmith import storage
from tunesmith.tuning.trials import CHECKPOINTS, Report, Trial, folder_of

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


def note_whole(folder: str, step: int) -> int:
    """Note that a checkpoint which Ray Train has put into the trial's folder is all there; returns its bytes.

    0 where Ray Train has dropped it meanwhile.
    """
    place = place_of(folder, step)
    if not storage.is_dir(place):
        return 0
    storage.write_bytes(storage.join(place, WHOLE), b"")
    return sum(storage.size(file) for file in storage.list_files(place, recursive=True))


def best_of(run: str, trial: Trial) -> tuple[str, Report] | None:
    """The checkpoint that a finished trial is worth, and its evaluation: the best of those that are still there.

    Of equal ones :attr:`Trial.best`, as :func:`keep` has it, else the last: where Ray Train keeps checkpoints it keeps that.
    """
    folder, steps = folder_of(run, trial.number), steps_of(folder_of(run, trial.number))
    there = [one for one in trial.reports if one.step in steps]
    best = max(there, key=lambda one: (one.score, one == trial.best, one.step), default=None)
    return (place_of(folder, best.step), best) if best is not None else None


def held(trial: Trial) -> int:
    """How many checkpoints a trial that has ended keeps: its best and its latest."""
    return 0 if trial.best is None else 1 if trial.best.step == trial.done_steps else 2


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
