"""Fits over new data with old data beside it: what is replayed, and what is watched."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from support.data import MemorySplit
from support.fits import losses, prepare_in_memory
from tunesmith.recipe import Recipe
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
from tunesmith.training.spec import OldData

Rows = list[dict[str, Any]]
Case = tuple[Recipe, Rows, Rows]
"""A recipe, the new rows, the old rows."""
Outcome = tuple[list[float], dict[str, npt.NDArray[Any]], list[dict[str, Any]]]
"""Losses, final parameters, and the lines of retention and validation."""


def with_old(recipe: Recipe, rows: Rows, old: Rows, by: Any = "score") -> tuple[FitSpec, FitData]:
    """Spec and data of a fit that replays the first half of the old rows and watches the second."""
    spec, data = prepare_in_memory(recipe, rows)
    half = len(old) // 2
    replay, watched = (MemorySplit(spec.task, part, spec.preprocessing) for part in (old[:half], old[half:]))
    return spec, dataclasses.replace(data, replay=replay, retention={"old": OldData(watched, by)})


def fitted_with_old(context: FitContext, cases: list[Case], by: Any = "score") -> list[Outcome]:
    """Each case fitted, one after the other."""
    found = []
    for recipe, rows, old in cases:
        spec, data = with_old(recipe, rows, old, by)
        result = fit(spec, data, context)
        told = [event for event in result.history if event["kind"] in ("retention", "eval")]
        tensors = {name: tensor.numpy().copy() for name, tensor in result.model.state_dict().items()}
        found.append((losses(result), tensors, told))
    return found


def numbers(lines: list[dict[str, Any]], name: str, split: str = "retention/old") -> list[float]:
    """One value of the lines of a split."""
    return [line[name] for line in lines if line["split"] == split]
