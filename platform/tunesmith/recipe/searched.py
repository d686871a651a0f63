"""A searched recipe and the recipes of its trials: what it says itself of the searched keys, and what a trial makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe import keys
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.search_space import Dimension, active


def own_values(recipe: Recipe, space: Sequence[Dimension]) -> dict[str, Any]:
    """What the recipe itself says of the searched keys, in the words of the space where it has them.

    >>> from tunesmith.recipe.search_space import parse
    >>> recipe = Recipe.from_dict({"task": "text-classification", "model": {"model_name_or_path": "owner/base"},
    ...     "data": {"train": "hf://owner/data"}})
    >>> space, _ = parse({"training.weight_decay": {"choice": [0, 0.1]},
    ...     "training.unfreeze": {"choice": [{}, {"every_epochs": 1}]},
    ...     "training.seed": {"choice": [1, 2], "when": {"training.weight_decay": 0.1}}})
    >>> own_values(recipe, space)
    {'training.weight_decay': 0, 'training.unfreeze': {}}
    """
    written = recipe.model_dump(mode="json")
    values: dict[str, Any] = {}
    for one in space:
        if active(one, values):
            value = keys.get(written, one.key)
            values[one.key] = next((other for other in one.values if _same(recipe, one.key, other, value)), value)
    return values


def _same(recipe: Recipe, key: str, other: Any, value: Any) -> bool:
    """Whether a value of the space is the recipe's own: 0 is 0.0, ``./base`` the folder that it names, ``{}`` the defaults."""
    if other == value:
        return True
    if not isinstance(other, str | dict | list):
        return False
    try:
        changed = recipe.with_values({key: other}, without=("search", *replaced([key])), check_paths=False).resolved()
    except RecipeError:
        return False
    return bool(keys.get(changed.model_dump(mode="json"), key) == value)


def replaced(searched: Iterable[str]) -> list[str]:
    """Those of the keys that are sections in a section: their values are the whole of it, whatever the recipe says there.

    >>> replaced(["training.unfreeze", "training.seed", "training"])
    ['training.unfreeze']
    """
    sections = set(keys.sections(Recipe))
    return [key for key in searched if key in sections and "." in key]


def trial_recipe(recipe: Recipe, space: Sequence[Dimension], values: Mapping[str, Any], *, overridden: bool = True) -> Recipe:
    """The recipe of a trial with these values; ``overridden``: also with ``search.trial_overrides``.

    Raises:
        RecipeError: values that contradict each other or the rest of the recipe.
    """
    search = recipe.search
    metric = search.metric or (search.objectives[0] if search.objectives else None)
    chosen: dict[str, Any] = {"training.metric_for_best_model": metric} if metric else {}
    if search.mode is not None:
        chosen["training.greater_is_better"] = search.mode == "max"
    # What the recipe says of its own metric says nothing of another: whether more of that is better is derived anew.
    other = metric is not None and metric != recipe.resolved().training.metric_for_best_model
    unsaid = {"training.greater_is_better": None} if other else {}
    absent = [*(one.key for one in space if one.key not in values), *replaced(values)]
    every = {**unsaid, **(search.trial_overrides if overridden else {}), **chosen, **values}
    return recipe.with_values(every, without=("search", *absent)).resolved()
