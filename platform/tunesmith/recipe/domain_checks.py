"""What cannot be seen in one field of data sets with names: names that stand twice, and weights that share out nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tunesmith.recipe.checks import Finding
from tunesmith.recipe.data import domains_of, weights_of
from tunesmith.recipe.recipe import Recipe


def names(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """No two data sets of a split have one name."""
    for split in ("train", "validation", "test"):
        seen: dict[str, int] = {}
        for index, one in enumerate(domains_of(getattr(recipe.data, split))):
            first = seen.setdefault(one.name, index)
            if first != index:
                what = f"two data sets are called {one.name}, this one and data.{split}[{first}]"
                fix = "give each a name of its own, or put both places into one path: [FILE, FILE]"
                yield Finding(("data", split, index, "name"), what, fix)


def weights(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Weights stand where rows are drawn, and there are several domains to share the draws."""
    for split in ("validation", "test"):
        for index, one in enumerate(domains_of(getattr(recipe.data, split))):
            if one.weight is not None:
                what = f"every row of {split} is judged once, and a weight says how often rows are drawn in training"
                yield Finding(("data", split, index, "weight"), what, "remove it, or give the weight in data.train")
    found = domains_of(recipe.data.train)
    if len(found) == 1 and weights_of(found) is not None:
        what = "there is no other domain to share the draws with"
        yield Finding(("data", "train", 0, "weight"), what, "remove it, or name another data set")


CHECKS = (names, weights)
