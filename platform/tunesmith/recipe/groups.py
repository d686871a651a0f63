"""``data.groups``: groups of examples (of people, of sites) that training is to treat alike."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.base import Section


class GroupsSection(Section):
    """Groups whose size, or whose classes, are uneven in the training rows. The suite ``fairness`` measures what it brings."""

    columns: list[str] = Field(default_factory=list)
    """Columns of the data whose values, several together, are the groups; naming one turns it on. Numbers with more than 20
    values are cut into four parts of equal size; rows without a value are a group too."""

    method: Literal["reweigh", "balanced"] = "reweigh"
    """``reweigh`` weighs each example in the loss by P(group) P(class) / P(group, class), so that no class belongs to a group
    more than to others (Kamiran and Calders 2012); one class for each example. ``balanced`` draws as many examples of each
    group in every epoch, and with ``training.sampling: balanced`` of each class in each group."""
