"""``training.replay:``: old data that is mixed into the new, so that the old is not forgotten."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.base import Section
from tunesmith.recipe.data import Source


class ReplaySection(Section):
    """Rehearsal: a share of every epoch is rows of the old task or domain (Robins 1995)."""

    data: Source | None = None
    """Labelled rows with the classes of ``data.train``: a file, folder, glob, URI or Hub id, or a list of them. None replays
    nothing. Rows that also stand in the validation or test split are refused; nearly the same ones are told, or refused too
    where ``data.leakage`` is ``error``."""

    share: float = Field(default=0.2, gt=0, lt=1)
    """Share of an epoch's examples that are old, exact to one example. All new rows are seen in every epoch; old ones take
    turns, so that each is seen equally often."""
